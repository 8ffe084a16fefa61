"""Rules that spread a budget over the layers and pieces of a model."""
