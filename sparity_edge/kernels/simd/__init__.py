"""Vectors and instructions for Numba kernels: LLVM behind plain function names."""
