"""From the name of a model to a source of its rotated weights, for `convert --rotate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.adapters.adapted import AdaptedSource
from converters.calibration.windows import (
    LEAST_WINDOWS,
    WINDOW,
    Windows,
    read_documents,
    token_windows,
)
from converters.pack_options import PackOptions
from converters.rotation.bases import find_bases
from converters.rotation.rotated import RotatedSource, demand_rotatable
from converters.sources.source import Source
from converters.store import prepare
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import QUIET, CallContext
from sparity_edge.text.default_text import default_documents
from sparity_edge.text.tokenizer import Tokenizer

TOKENS = 16384  # of calibration text that the bases are made of


def rotated(
    source: Source,
    model: str,
    kind: str,
    *,
    texts: Sequence[str | Path] = (),
    threads: int,
    context: CallContext = QUIET,
) -> RotatedSource:
    """The rotated weights of a model.

    Args:
        source: the model, open.
        model: what it is called, as for `Generator.load`; its dense pack runs over the text.
        kind: "global": one basis; "layers": one a layer, with residual adapters between them.
        texts: as for `calibrate`; none: the help of Python.
        threads: how many compute.
        context: what may be done to find the model, and whom it is told.

    Raises:
        OptionError: the model is rotated already, or the text is too short.
        SourceError, ConfigError, FormatError: the model cannot be found, read or packed.
    """
    if isinstance(source, AdaptedSource):
        source = source.merged()  # what is rotated comes in floats
    demand_rotatable(source)
    packed = open_packed(prepare(model, PackOptions(), context))
    windows = _windows(packed, texts)
    bases = find_bases(packed, windows, kind, threads=threads, progress=context.progress)
    return RotatedSource(source, kind, bases)


def _windows(packed: PackedModel, texts: Sequence[str | Path]) -> Windows:
    config = packed.config
    window = min(WINDOW, config.max_position_embeddings)
    documents = read_documents(texts) if texts else default_documents()
    tokenizer = Tokenizer.from_folder(packed.path)
    tokenizer.demand_rows(config.vocab_size)
    tokens = max(TOKENS, LEAST_WINDOWS * window)
    return token_windows(tokenizer, config.eos_token_ids, documents, tokens, window)
