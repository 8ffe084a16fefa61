"""Anthropic's Messages: `routes` for an application, over `bodies`, `calls` and `answers`."""
