"""Constraints: what a text must follow, such as a JSON schema, token by token, by llguidance."""
