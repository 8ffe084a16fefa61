"""Kernels over active channels of one token: which they are, and products that read only theirs."""
