"""Kernels: arrays in, arrays out, no allocation; each with a NumPy twin in `reference`.

`program` records what a model asks for and `team` runs it on threads; `vmm`, `gemm`, `attention`
and `elementwise` hold the arithmetic; `simd` is the vector type they are written in. Kernels know
nothing of models. Importing anything here but `reference` imports Numba.
"""
