"""Tool calls in answers and prompts: the syntaxes that models write them in."""
