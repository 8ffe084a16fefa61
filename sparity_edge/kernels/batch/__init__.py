"""Kernels for one token of each of several sequences: every weight is read once for all."""
