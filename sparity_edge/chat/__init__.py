"""The chat at the terminal: REPL, session, commands, conversation, line input."""
