"""Kernels of a screened product: coarse scores of all outputs, and which come near the best."""
