"""Words: the argument block of a kernel, int64 words declared once and by name.

A kernel reads `load_i64(arguments + RMSNORM.x)`, which Numba compiles to a constant offset, and is
recorded as `record(rmsnorm, chunks, x=..., weight=...)`: names and offsets cannot drift apart. What
several kernels share is declared once and extended. Knows nothing of what any word means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from numba import types
from numba.core.imputils import lower_constant
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
)

WORD_BYTES = 8


class Words:
    """Names of int64 words that follow each other; an attribute is the byte offset of its word.

    Args:
        names: of the words, separated by blanks.
        shared: words that stand in front of them.
        inner: argument blocks of other kernels that follow, by the name of the place where each
            begins; `before` with a word `x` gives the word `before_x` and the offset `before`.

    Raises:
        ValueError: a name stands twice, or is no name that a keyword can have.
    """

    def __init__(self, names: str, shared: Words | None = None, **inner: Words) -> None:
        own = names.split()
        self._inner: dict[str, Words] = {**(shared._inner if shared else {}), **inner}
        self._places: dict[str, int] = {}
        self.names: tuple[str, ...] = (*(shared.names if shared else ()), *own)
        for place, words in inner.items():
            self._places[place] = WORD_BYTES * len(self.names)
            self.names += tuple(f"{place}_{name}" for name in words.names)
        taken = (*dir(Words), "names", "kernel", "chunks", "writes", "stream")
        for name in (*self.names, *self._places):
            if not name.isidentifier() or name in taken:
                raise ValueError(f"{name!r} cannot name a word of an argument block.")
        if len({*self.names, *self._places}) < len(self.names) + len(self._places):
            raise ValueError(f"A name stands twice in {' '.join(self.names)}.")
        self._places |= {name: WORD_BYTES * index for index, name in enumerate(self.names)}
        self._pick = itemgetter(*self.names, self.names[0])  # a tuple, even of a single word

    def __getattr__(self, name: str) -> int:
        """The byte offset of a word."""
        if name.startswith("_") or name not in self._places:
            raise AttributeError(f"{name} is no word of {' '.join(self.names)}.")
        return self._places[name]

    def plus(self, names: str = "", **inner: Words) -> Words:
        """An argument block that begins with these words; arguments as for `Words`."""
        return Words(names, self, **inner)

    def ordered(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Values in the order of the words; those of an inner block come as one mapping.

        Raises:
            TypeError: a word has no value, or a value no word.
        """
        if self._inner:
            values = {**values}
            for place in self._inner.keys() & values.keys():
                values |= {f"{place}_{name}": each for name, each in values.pop(place).items()}
        try:
            found: tuple[Any, ...] = self._pick(values)
        except KeyError:
            found = ()
        if not found or len(values) > len(self.names):
            raise TypeError(_difference(self.names, values))
        return found[:-1]


def _difference(names: Iterable[str], values: Iterable[str]) -> str:
    """What is wrong with the names of some values."""
    names, values = list(names), list(values)
    missing = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    told = [f"no value for {', '.join(missing)}"] if missing else []
    told += [f"no such word as {', '.join(unknown)}"] if unknown else []
    return f"{' and '.join(told)}; the words are: {' '.join(names)}."


# --- how Numba sees them ----------------------------------------------------------------------


class _WordsType(types.Opaque):  # type: ignore[misc]
    """A type of its own for each declaration, so that its offsets are constants."""

    def __init__(self, words: Words) -> None:
        self.words = words
        super().__init__(f"Words({' '.join(words.names)})")


register_model(_WordsType)(models.OpaqueModel)


@typeof_impl.register(Words)
def _typeof(words: Words, _context: Any) -> _WordsType:
    return _WordsType(words)


@lower_constant(_WordsType)
def _constant(context: Any, *_: Any) -> Any:
    return context.get_dummy_value()


@infer_getattr
class _Offsets(AttributeTemplate):  # type: ignore[misc]
    """Attributes of a declaration are integers."""

    key = _WordsType

    def generic_resolve(self, kind: _WordsType, name: str) -> Any:
        return types.int64 if hasattr(kind.words, name) else None


@lower_getattr_generic(_WordsType)
def _offset(context: Any, _builder: Any, kind: _WordsType, _value: Any, name: str) -> Any:
    return context.get_constant(types.int64, getattr(kind.words, name))
