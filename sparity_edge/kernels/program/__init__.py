"""The program: operations recorded once, and the thread team that runs them."""
