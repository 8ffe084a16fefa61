"""Hidden states of a text behind the last norm: what the LM head reads, a chunk at a time.

Always dense: a plan is made for what comes out of the head. Knows nothing of what is done with
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.errors import OptionError
from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.model import Model
from sparity_edge.model.prefixes.parts import CHUNK


def demand_own_basis(model: Model) -> None:
    """Refuse a model whose hidden states are not those that it was trained to have.

    Args:
        model: asked for its rotation.

    Raises:
        OptionError: its packed folder is rotated.
    """
    if model.config.rotation is not None:
        raise OptionError(
            "The hidden states of a rotated pack stand in another basis than the model's own; "
            "serve the model packed without rotation for embeddings."
        )


def hidden_states(model: Model, ids: Sequence[int]) -> Iterator[Floats]:
    """The states of every token, (up to CHUNK, hidden_size) at a time.

    Those of transformers' `last_hidden_state`.

    Args:
        model: whose own KV cache is left alone.
        ids: of the text, at least one.

    Raises:
        ContextError: they do not fit.
        OptionError: an id is no row of the embedding.
    """
    cache = model.new_kv_cache()
    cache.reserve(len(ids))
    cache.stretch = model.decoder.rope.stretch(len(ids))
    folded = np.float32(model.config.scales.head)  # into the norm, for the head
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        this = ForwardPass(model.decoder, model.machine, 1, len(part), 0)
        this.run(part, [cache])
        yield this.buffers.h / folded
