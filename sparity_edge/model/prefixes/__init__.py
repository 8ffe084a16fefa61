"""Beginnings of texts that need not be read again, and how prompts are cut so that it is exact."""
