"""LoRA adapters as peft writes them: found by name, read without trust, put to a model."""
