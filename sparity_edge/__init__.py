"""sparity-edge: Llama, Mistral, Qwen and more models on laptop CPUs, in Python.

The public names, sorted. Each is imported when it is first used, so that `import sparity_edge`
costs nothing: Numba and NumPy come with the first name that needs them. Not even typing is needed:
until the command listens to Ctrl-C, Python answers it with a traceback.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name and take it for true

if TYPE_CHECKING:
    from typing import Any

    from sparity_edge.config.model_config import ModelConfig
    from sparity_edge.errors import (
        ConfigError,
        ContextError,
        FormatError,
        OptionError,
        ResourceError,
        SourceError,
        SparityError,
        TemplateError,
    )
    from sparity_edge.generation.generator import Generator
    from sparity_edge.generation.params import SamplingParams
    from sparity_edge.generation.results import Completion, Statistics, Step
    from sparity_edge.model.families import read_config
    from sparity_edge.text.tokenizer import Tokenizer

__all__ = [
    "Completion",
    "ConfigError",
    "ContextError",
    "FormatError",
    "Generator",
    "ModelConfig",
    "OptionError",
    "ResourceError",
    "SamplingParams",
    "SourceError",
    "SparityError",
    "Statistics",
    "Step",
    "TemplateError",
    "Tokenizer",
    "__version__",
    "read_config",
]

_HOMES = {
    "Completion": "generation.results",
    "ConfigError": "errors",
    "ContextError": "errors",
    "FormatError": "errors",
    "Generator": "generation.generator",
    "ModelConfig": "config.model_config",
    "OptionError": "errors",
    "ResourceError": "errors",
    "SamplingParams": "generation.params",
    "SourceError": "errors",
    "SparityError": "errors",
    "Statistics": "generation.results",
    "Step": "generation.results",
    "TemplateError": "errors",
    "Tokenizer": "text.tokenizer",
    "read_config": "model.families",
}

__version__: str


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from sparity_edge.system.version import own_version

        value: Any = own_version()
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
