"""The model: weights, decoder, forward pass, KV cache, and the plan applied to it."""
