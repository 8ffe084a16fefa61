"""Texts made into vectors: one for each, pooled from the hidden states of its tokens.

A request may have many texts; it is read a chunk at a time, and requests take turns, so that none
waits for all of another one. Knows nothing of HTTP and nothing of what else the model decodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sparity_edge.arrays import Doubles, Floats
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.model.model import Model
from sparity_edge.server.embeddings.hidden import hidden_states


class PooledTexts:
    """The texts of one request.

    Args:
        texts: token ids, at least one of each.
        last: take the state of the last token, not the mean over all.
        listener: called with None when all texts are read, or with the error that ended it.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        last: bool,
        listener: Callable[[BaseException | None], None],
    ) -> None:
        self.vectors: list[Floats] = []  # (hidden_size,) of each text that has been read
        self.cancelled = False  # whoever asked has gone
        self.listener = listener
        self._texts, self._last = texts, last
        self._steps: Iterator[None] | None = None

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(len(ids) for ids in self._texts)

    def cancel(self) -> None:
        """Have what is not read yet left alone."""
        self.cancelled = True

    def read_a_chunk(self, model: Model) -> bool:
        """Read on.

        Args:
            model: that has read what was read before.

        Returns:
            Whether all texts are read now.
        """
        if self._steps is None:
            self._steps = self._read(model)
        next(self._steps, None)
        return len(self.vectors) == len(self._texts)

    def _read(self, model: Model) -> Iterator[None]:
        for ids in self._texts:
            total: Doubles = np.zeros(model.config.hidden_size)
            read = 0
            for states in hidden_states(model, ids):
                read += len(states)
                total += states.sum(axis=0, dtype=np.float64)
                if read < len(ids):
                    yield
            vector = states[-1] if self._last else total / read
            self.vectors.append(vector.astype(np.float32))
            yield


class PoolQueue:
    """Requests for vectors.

    Args:
        loaded: the model; its lock is held while a chunk is read.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._waiting: deque[PooledTexts] = deque()

    def __len__(self) -> int:
        """Requests that are not over."""
        return len(self._waiting)

    def add(self, texts: PooledTexts) -> None:
        """Have a request read, the last of all.

        Args:
            texts: none read yet.
        """
        self._waiting.append(texts)

    def read_a_chunk(self) -> int:
        """Read a chunk of the request whose turn it is.

        Returns:
            Tokens of that request, if it is over now; else 0.
        """
        texts = self._waiting.popleft()
        if texts.cancelled:
            return 0
        try:
            with self._loaded.busy:
                over = texts.read_a_chunk(self._loaded.model)
        except Exception as error:  # of this request alone: nobody else's KV cache was written
            texts.listener(error)
            return 0
        if not over:
            self._waiting.append(texts)
            return 0
        texts.listener(None)
        return texts.tokens

    def fail(self, error: BaseException) -> None:
        """End all requests.

        Args:
            error: that they are told.
        """
        while self._waiting:
            self._waiting.popleft().listener(error)
