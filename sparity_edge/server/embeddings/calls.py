"""What a request for vectors asks of the model: token ids of texts.

Every wrong value is an OptionError that names the field. Knows nothing of HTTP.
"""

from __future__ import annotations

from sparity_edge.errors import ContextError, OptionError
from sparity_edge.generation.loaded_model import LoadedModel, Prompt
from sparity_edge.server.calls import prompts_of
from sparity_edge.server.embeddings.bodies import EmbeddingsBody
from sparity_edge.server.embeddings.hidden import demand_own_basis

MOST_TEXTS = 2048  # as in OpenAI's API


def texts_of(loaded: LoadedModel, body: EmbeddingsBody) -> list[list[int]]:
    """The texts of a request, as token ids.

    Args:
        loaded: the model.
        body: of the request, its fields checked one by one.

    Raises:
        OptionError, ContextError: a field cannot be honoured.
    """
    demand_own_basis(loaded.model)
    size = loaded.config.hidden_size
    if body.dimensions not in (None, size):
        raise OptionError(
            f"dimensions={body.dimensions} is refused: vectors of this model have {size} numbers "
            "that cannot be cut; leave it out."
        )
    texts = prompts_of(body.input)
    if not 0 < len(texts) <= MOST_TEXTS:
        raise OptionError(f"input has {len(texts)} texts; use 1 to {MOST_TEXTS}.")
    return [_ids(loaded, text, index) for index, text in enumerate(texts)]


def _ids(loaded: LoadedModel, text: Prompt, index: int) -> list[int]:
    if not text:
        raise OptionError(f"input.{index} is empty; give at least one word.")
    ids = loaded.encode(text)
    if len(ids) > loaded.max_context:
        raise ContextError(
            f"input.{index} has {len(ids)} tokens and the context holds {loaded.max_context}; "
            "shorten it."
        )
    return ids
