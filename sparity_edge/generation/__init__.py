"""Generation: text in, text out. Sampling, sequences, batches, the plan that is followed."""
