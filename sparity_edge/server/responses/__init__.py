"""OpenAI's Responses without stored state: `routes`, over `bodies`, `calls` and `answers`."""
