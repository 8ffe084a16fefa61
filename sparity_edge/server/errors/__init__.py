"""Errors on their way to clients: which status (`refusals`) and which shape (`shapes`)."""
