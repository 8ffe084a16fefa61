"""Number formats that are kept as GGUF has them: what their kernels do differently, by families."""
