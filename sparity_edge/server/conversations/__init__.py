"""Conversations: what is asked with tools, and how the answers of all protocols are read."""
