"""Sources: a model in somebody's format seen as a lazy mapping from tensor name to array.

Names are those of a transformers checkpoint (`model.layers.0.self_attn.q_proj.weight`) whatever
the format, and one tensor or some rows of it are in memory at a time. `open_source` decides what a
model argument names and refuses a model whose tensors do not fit its configuration. This module
knows no file format and nothing of how weights are packed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from converters.sources.claims import remarks
from converters.sources.rows import in_rows
from converters.sources.source import Source, unreadable
from sparity_edge.errors import SourceError
from sparity_edge.packed.manifest import is_packed
from sparity_edge.progress import QUIET, CallContext

# A module of a layer that the decoder computes: a tensor in it that we do not expect (a bias the
# configuration denies, a norm on q and k) would change the result, so it is not ignored.
PREDICTOR = "predictor"  # a module that checkpoints with ReLU may have in every layer
_COMPUTED = re.compile(r"model\.layers\.(\d+)\.(self_attn\.(?!rotary_emb)|mlp\.|\w*norm)")


def open_source(model: str, context: CallContext = QUIET) -> Source:
    """Open a model and check that its tensors are the ones its configuration asks for.

    Args:
        model: a Hugging Face folder, a GGUF file, an alias, a hub id `org/name[@revision][:TAG]`,
            or the web address of a model on the Hub.
            What exists on the disk wins over an alias or a hub id of the same name.
        context: whether anything may be fetched, and who is told of it.

    Raises:
        SourceError: nothing has that name, it cannot be fetched, or it is damaged.
        ConfigError: the model is of a kind that the decoder does not run.
    """
    source = _open(model, context)
    if source.checked:
        return source
    try:
        source = in_rows(source)
        _validate(source)
        stray = remarks(
            source.config, source.config_json, source.generation_config, source.shapes()
        )
        for note in (*source.notes, *stray):
            context.notify(f"{source.label}: {note}")
    except BaseException:
        source.close()
        raise
    return source


def _open(model: str, context: CallContext) -> Source:
    from converters.sources.remote.addresses import hub_id, unknown
    from converters.sources.remote.hub import ALIASES, fetch, is_alias, is_hub_id

    path = Path(model).expanduser()
    if model and exists(path):
        return _open_path(path, model)
    name = hub_id(model)
    if is_alias(name) or is_hub_id(name):
        fetched = fetch(name, context)
        if is_packed(fetched.path):
            from converters.sources.packed import PackedSource

            return PackedSource(fetched.path, name)
        source = _open_path(fetched.path, name, fetched.identity)
        source.generation_config = {**fetched.suggested, **source.generation_config}
        source.card = {**fetched.card, **source.card}
        return source
    raise unknown(name, ALIASES)


def _open_path(path: Path, label: str, identity: str | None = None) -> Source:
    if path.is_dir():
        from converters.sources.hf import HuggingFaceSource

        return HuggingFaceSource(path, label, identity)
    # A pipe would be waited for.
    if path.is_file() and (path.suffix.lower() == ".gguf" or _starts_with(path, b"GGUF")):
        from converters.sources.gguf import GgufSource

        return GgufSource(path, label)
    raise SourceError(
        f"{label}: this is neither a folder nor a GGUF file; for safetensors pass the folder that "
        "holds them with config.json."
    )


def _validate(source: Source) -> None:
    """Compare the tensors with what the configuration asks for, before any is read."""
    expected = source.config.tensor_shapes()
    found = source.shapes()
    for name, shape in expected.items():
        if name not in found:
            raise SourceError(
                f"{source.label}: tensor {name} of shape {shape} is missing; the model is "
                "incomplete or of another kind than its configuration says."
            )
        if found[name] != shape:
            raise SourceError(
                f"{source.label}: tensor {name} has shape {found[name]}, but the configuration "
                f"asks for {shape}; the files do not belong together."
            )
        source.check_dtype(name)
    predicted = source.config.activation.zeroes
    for name in _unexpected(expected, found):
        # Of which gates are zero; who looks at the gates themselves needs no guess.
        if predicted and PREDICTOR in name.split("."):
            continue
        raise SourceError(
            f"{source.label}: tensor {name} has no place in a model of this configuration, which "
            "would give wrong answers; the model is of a kind that is not supported."
        )


def _unexpected(expected: Iterable[str], found: Iterable[str]) -> Iterator[str]:
    expected = set(expected)
    layers = {name.split(".")[2] for name in expected if name.startswith("model.layers.")}
    for name in found:
        match = _COMPUTED.match(name)
        if match and match[1] in layers and name not in expected:
            yield name


def exists(path: Path) -> bool:
    """Whether something is there; False for names the system cannot even ask about."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a NUL byte
        return False


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise unreadable(path, error) from error
