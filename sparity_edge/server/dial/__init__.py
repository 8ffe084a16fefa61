"""The sparsity dial of a request: what it asks for, and what there is to choose from."""
