"""What a user may choose between: number formats, layouts, default model and plan, limits.

Each tuple stands here once, for the command line, the Python API and the converters. Imports
nothing, so that --help is immediate.
"""

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_PLAN = "auto"
DTYPES = ("f32", "bf16", "int8", "int4")  # that weights in floats become; K-quants are only kept
KV_DTYPES = ("f32", "bf16", "int8")  # of keys and values in the KV cache
# Which matrices stand input-major, and whether up and down are bundled: see docs/format.md.
LAYOUTS = ("dense", "ffn", "neurons", "mixed", "input")
# Those whose weights can be skipped, first the one that is quickest where it carries a plan.
SPARSE_LAYOUTS = ("ffn", "neurons", "mixed", "input")
# Bases of the residual stream that weights can be folded into: one, or one a layer with adapters.
ROTATIONS = ("global", "layers")
MOST_KL = 0.1  # nats a token to the dense model, beyond which a plan is followed by force only
MAX_LEVEL = 0.9  # of a sparsity plan: beyond it nothing that can be read is left
CACHE_DIR_MB = 4096  # MB of files that keep beginnings of prompts
DEFAULT_MAX_CONTEXT = 32768  # positions, where the model has more: bounds what a chat may take
