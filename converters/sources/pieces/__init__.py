"""tokenizer.model: SentencePiece models read without the package, and made into tokenizer.json."""
