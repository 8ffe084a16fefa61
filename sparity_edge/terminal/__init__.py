"""What reaches the terminal: the screen, and JSON on stdout."""
