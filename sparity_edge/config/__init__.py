"""config.json: what it says about a model, every value checked."""
