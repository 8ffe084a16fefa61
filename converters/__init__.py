"""From other people's model formats to ours: sources, quantisation, packing and the pack cache.

The package reads safetensors folders, GGUF files and models of the Hugging Face Hub, and writes
the packed folder that the runtime loads. It imports `sparity_edge`; the runtime never imports it
back, except lazily from the command line and `Generator.load`.
"""
