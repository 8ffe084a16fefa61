"""Price lists of passes over several tokens, kept in the pack cache for speculation to begin with.

A list holds for one pack and plan, a number of threads, a format of the KV cache, and a version of
the kernels, which differs from one kind of processor to another; with a screen before the LM head
or without. It is looked for between two tokens, so that nothing slow is asked. Files here may be
damaged or deleted at any time; without one, prices are learnt while text is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import FormatError
from sparity_edge.generation.speculation.prices import PriceList
from sparity_edge.packed.manifest import content_of
from sparity_edge.system.atomic import replace_file
from sparity_edge.system.folders import prices_root

if TYPE_CHECKING:
    from sparity_edge.generation.loaded_model import LoadedModel

_MAX_BYTES = 1 << 14
_MOST_TIMES = 1000.0  # as many as one token, that a believable price is below


class KeptPrices:
    """The price list of a loaded model; looked for when it is asked for.

    Args:
        loaded: the model; the list is that of the plan in force.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def find(self) -> PriceList:
        """The list that was kept; empty where none was."""
        try:
            with self._file().open("rb") as file:
                content: Any = json.loads(file.read(_MAX_BYTES))
            found = {
                int(size): {int(depth): float(price) for depth, price in prices.items()}
                for size, prices in content.items()
            }
        except (OSError, ValueError, RecursionError, TypeError, AttributeError, FormatError):
            return {}
        prices = [price for each in found.values() for price in each.values()]
        return found if all(0 < price < _MOST_TIMES for price in prices) else {}

    def keep(self, prices: PriceList) -> None:
        """Keep a list; best effort."""
        with contextlib.suppress(OSError, FormatError):
            file = self._file()
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, [json.dumps(prices).encode()])

    def _file(self) -> Path:
        from sparity_edge.kernels.kernel import version_of_kernels

        model = self._loaded.model
        facts = [content_of(self._loaded.path), model.threads, model.kv_cache.dtype]
        if (plan := model.plan) is not None:
            facts += [plan.name, plan.sparsity]
        text = json.dumps([*facts, model.screen is not None, version_of_kernels()])
        return prices_root() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
