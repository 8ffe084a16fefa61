"""Text and token ids: the tokenizer, the chat template and the sandbox it is rendered in."""
