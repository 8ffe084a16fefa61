"""The loss in quality, measured: perplexity, KL divergence, scores of continuations."""
