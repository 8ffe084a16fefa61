"""The options of each command; imports nothing heavy, so that --help is immediate."""
