"""Kernels: arrays in, arrays out, no allocation; each with a NumPy twin in `reference`.

Here stand what a model speaks to (`operations`), what kernels are told of matrices, lists and rows
of the KV cache, and the decorator `Kernel`. Below: `simd` is what kernels are written in; `decode`,
`prefill` and `batch` hold them; `program` records what a model asks for and runs it on threads.
Kernels know nothing of models.
"""
