"""Kernels for the many tokens of a prompt: GEMM and attention by tiles."""
