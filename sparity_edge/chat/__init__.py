"""The chat at the terminal: session, commands, conversation, line input."""
