"""Kernels for one token: every weight, or those of active channels, are read once."""
