"""Numbers of adapter_config.json that some modules have of their own, by patterns of their names.

Patterns are regular expressions written by strangers, and Python's engine can take for ever over
such ones. What is used in practice is matched, anything that could take long is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import SourceError

MAX_LENGTH = 200
MAX_PATTERNS = 1 << 14  # one for each linear of the largest model
# Each repeat multiplies the time by the length of a name, which is about 40.
MAX_REPEATS, MAX_REPEATING = 2, 16
_ALLOWED = re.compile(r"(?:[\w.^$|()\[\]*+?:-]|\\[.dw])*", re.ASCII)
# A repeated group or repeat, whose time can double with each character.
_NESTED = re.compile(r"[)*+?][*+?]|\(\?(?!:)")
_REPEAT = re.compile(r"(?<!\()[*+?]")


class Numbers:
    """A number for all modules, and those of some.

    Args:
        settings: the content of adapter_config.json.
        key: of the number for all of them.
        patterns: of the object from patterns to numbers; the first one that matches counts.
        where: what a message calls the file.

    Raises:
        SourceError: one is no number, or a pattern is none that is supported.
    """

    def __init__(self, settings: Mapping[str, Any], key: str, patterns: str, where: str) -> None:
        given = settings.get(patterns) or {}
        self._where = f"{where}: {patterns}"
        if not isinstance(given, Mapping) or len(given) > MAX_PATTERNS:
            raise SourceError(f"{self._where} is no object of names; fetch the adapter again.")
        self._usual = _number(settings.get(key, 8), f"{where}: {key}")
        self._own = [
            (self._compiled(pattern), _number(value, self._where))
            for pattern, value in given.items()
        ]
        if sum(bool(_REPEAT.search(each)) for each in given) > MAX_REPEATING:
            raise self._refused(next(iter(given)))

    def of(self, module: str) -> float:
        """The number of a module, "model.layers.0.self_attn.q_proj", as peft finds it.

        Args:
            module: as the adapter calls it.
        """
        return next((value for each, value in self._own if each.match(module)), self._usual)

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        plain = 0 < len(pattern) <= MAX_LENGTH and _ALLOWED.fullmatch(pattern)
        if not plain or _NESTED.search(pattern) or len(_REPEAT.findall(pattern)) > MAX_REPEATS:
            raise self._refused(pattern)
        try:
            return re.compile(rf"(?:.*\.)?(?:{pattern})$")
        except (re.error, RecursionError):
            raise self._refused(pattern) from None

    def _refused(self, pattern: str) -> SourceError:
        return SourceError(
            f"{self._where} holds {show(pattern)}, which is no pattern of names that is supported; "
            "merge the adapter with peft (merge_and_unload) and use the model that it saves."
        )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise SourceError(f"{where} holds {show(value)}, which is no number that can be used.")
    return float(value)
