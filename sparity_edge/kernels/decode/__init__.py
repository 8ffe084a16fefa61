"""Kernels for one token: every weight is read once."""
