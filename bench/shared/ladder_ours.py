"""Our side of the ladder: packs of one model and the positions of the dial that each can take.

A side is what shares one file: rows with a name each, their quality in one pass over the text, and
functions that time them. llama.cpp's side (ladder_peer.py) looks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from shared.common import say
from shared.models import FILE
from shared.names import DENSE, OURS
from shared.rows import packs, settings_of
from shared.side import Side

from sparity_edge import Generator
from sparity_edge.measure.decoding import bytes_of_a_token
from sparity_edge.plans.setting import Setting
from sparity_edge.progress import CallContext

REGROUPED = 64  # input channels that share a scale, where the file has 32
# Formats whose numbers one of ours holds as they are.
KEEPS = {"Q8_0": "int8", "Q4_0": "int4", "Q4_1": "int4", "Q5_0": "int8"}


class OurSide:
    """One pack.

    Args:
        model: a GGUF file, an alias or a packed folder.
        dtype: number format; None: the file's own.
        rows: row name -> `dense` or a position of the dial.
        file_numbers: whether it holds the very numbers of the file.
        threads: how many compute.
    """

    def __init__(
        self,
        model: str | Path,
        dtype: str | None,
        rows: Mapping[str, str],
        file_numbers: bool,
        threads: int,
    ) -> None:
        self.rows, self._file_numbers = rows, file_numbers
        self._model, self._dtype, self._threads = model, dtype, threads
        self._side: Side | None = None

    @property
    def side(self) -> Side:
        """The pack, loaded on first use."""
        if self._side is None:
            self._side = Side(self._model, list(self.rows.values()), self._threads, self._dtype)
        return self._side

    def close(self) -> None:
        """Free the pack."""
        if self._side is not None:
            self._side.generator.close()
            self._side = None

    def quality(
        self, names: Collection[str], measure: Callable[..., list[Any]]
    ) -> dict[str, dict[str, Any]]:
        """KL and perplexity of some rows, every position of the text sparse."""
        generator, wanted = self.side.generator, [name for name in self.rows if name in names]
        generator.sparse_prefill = True
        results = measure(generator, settings=[Setting.parse(self.rows[name]) for name in wanted])
        model = generator.loaded.model
        found = {}
        for name, result in zip(wanted, results, strict=True):
            active = result.sparse.active_weight_fraction
            found[name] = {
                "side": OURS,
                "bytes_a_token": bytes_of_a_token(model, 0, active),
                "file_numbers": self._file_numbers,
                **result.to_dict(),
            }
        self.close()
        return found

    def cases(self, ids: list[int], depth: int) -> dict[str, Callable[[], float]]:  # noqa: ARG002
        """For each row a function that gives the seconds of a token."""
        self.side.generator.sparse_prefill = False
        return {name: self.side.case(setting, ids) for name, setting in self.rows.items()}

    def active(self) -> dict[str, float]:
        """By row: share of the weights read while it was timed."""
        return {name: self.side.active[setting] for name, setting in self.rows.items()}


def our_sides(options: Any, kind: str, threads: int) -> list[OurSide]:
    """The packs that the options ask for.

    Args:
        options: of ladder.py.
        kind: number format of the GGUF file, such as Q4_1.
        threads: how many compute.
    """
    own = (FILE, KEEPS.get(kind))
    sides = []
    for name in options.dense:
        dtype = None if name == FILE else name
        sides.append(OurSide(options.model, dtype, {name: DENSE}, name in own, threads))
    if options.regrouped:
        name = f"int4 by {REGROUPED}"
        sides.append(OurSide(_regrouped(options.model), None, {name: DENSE}, False, threads))
    for name in options.dial:
        dtype = None if name == FILE else name
        more = [pack for pack in options.packs if dtype is None or dtype in _dtypes(pack)]
        folders = packs(options.model, dtype, more)
        for folder, settings in settings_of(folders, options.settings, ()).items():
            rows = {f"{name} {setting}": str(setting) for setting in settings}
            sides.append(OurSide(folder, None, rows, name in own, threads))
    return sides


def _regrouped(model: str) -> Path:
    from converters.pack_options import PackOptions
    from converters.store import prepare

    return prepare(model, PackOptions(dtype="int4", group=REGROUPED), CallContext(notify=say))


def _dtypes(folder: Path) -> list[str]:
    with Generator.load(folder) as generator:
        return list(generator.info()["dtypes"])
