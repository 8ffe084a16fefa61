"""Sparsity plans: what is skipped where, as data, in memory and on disk."""
