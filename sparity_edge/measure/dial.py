"""The dial: which plan is followed where skipping weights is asked for, and whether one is.

A plan is followed where it makes decoding faster on this machine than dense decoding of the same
model and changes the text little; both are known, speed because it is measured here once, the
change because calibration measures it on text of its own. Knows nothing of how packs are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sparity_edge.choices import MOST_KL
from sparity_edge.errors import SparityError
from sparity_edge.generation.plan_setting import family_of, refuse_lossy
from sparity_edge.measure import gains_kept
from sparity_edge.measure.gain import Gain, measure_apart, measure_gain, token_seconds
from sparity_edge.measure.gains_kept import Conditions
from sparity_edge.packed.manifest import content_of
from sparity_edge.plans.setting import DENSE, Setting
from sparity_edge.plans.sparsity_choice import SparsityChoice
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.plans.plan import PlanFamily

Carried = tuple[Path, str]  # a packed folder and one of its plans
Open = Callable[[Path], "Generator"]
LEAST_GAIN = 1.02  # smaller ones are within what two measurements differ by
MOST_MEASURED = 4  # plans, those of least KL
ALIKE = 0.97  # of the largest gain: plans that gain as much are chosen from by their KL
SPARE_BYTES = 500 << 20  # beside the weights of two packs


@dataclass(frozen=True)
class Position:
    """A position of the dial in one packed folder."""

    path: Path
    family: PlanFamily
    setting: Setting
    sparsity: float  # that this comes to

    @property
    def kl(self) -> float | None:
        """Nats a token to the dense model at least, on held-out text; None: not measured."""
        return self.family.least_kl(self.sparsity)

    @property
    def lossy(self) -> bool:
        """Whether it is known to change the text too much to be followed unasked."""
        return self.kl is not None and self.kl > MOST_KL


def follow(
    setting: Setting,
    carried: Sequence[Carried],
    dense: Path,
    open_pack: Open,
    *,
    threads: int,
    cache_dtype: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Generator:
    """A generator that follows the best plan there is for a setting, or none where none gains.

    Args:
        setting: a sparsity, for which decoding is never slower than dense; or a level, which is
            followed at any speed.
        carried: the plans to choose from, at least one; several only where none is named.
        dense: the pack of the same model that is quickest to read whole.
        open_pack: loads a packed folder.
        threads, cache_dtype: that it loads packs with.
        force: follow a plan whatever it gains and costs.
        progress: told of compiling and measuring.

    Returns:
        A generator with its `sparsity_choice`.

    Raises:
        TooLossyError: a plan would be faster, but is known to change the text too much.
        OptionError: no plan reaches that far.
        FormatError: a plan is damaged.
    """
    found = _least_lossy([_position(*each, setting) for each in carried])
    if force:
        found = found[:1]
    here = partial(_conditions, dense, threads, cache_dtype or "default")
    with _Opened(open_pack, progress) as opened:
        gains = [_gain(opened, dense, each, here(each)) for each in found]
        best, gain = _best(found, gains)
        followed = force or setting.level is not None or gain.ratio >= LEAST_GAIN
        if followed and not force:
            refuse_lossy(best.family, best.sparsity)
        generator = opened.take(best.path if followed else dense)
    try:
        generator.apply(best.setting if followed else DENSE)
    except BaseException:
        generator.close()
        raise
    generator.loaded.sparsity_choice = SparsityChoice(
        best.family.name, best.sparsity, best.kl, round(gain.ratio, 3), followed
    )
    return generator


def _position(path: Path, plan: str, setting: Setting) -> Position | SparityError:
    """The place of a setting in a plan's table, or why there is none."""
    from sparity_edge.model.opening import open_folder

    try:
        family = family_of(open_folder(path), plan)
        at = (
            family.at_sparsity(setting.sparsity or 0.0)
            if setting.level is None
            else family.at_level(setting.level)
        )
    except SparityError as error:
        return error
    here = Setting(plan, setting.sparsity, setting.level)
    return Position(path, family, here, round(at.sparsity, 4))


def _least_lossy(found: Sequence[Position | SparityError]) -> list[Position]:
    """Those to measure, the least lossy first.

    Raises:
        SparityError: there are none.
    """
    positions = [each for each in found if isinstance(each, Position)]
    if not positions:
        raise next(each for each in found if isinstance(each, SparityError))
    # What was never measured on held-out text is no choice where there is another.
    positions.sort(key=lambda each: float("inf") if each.kl is None else each.kl)
    fine = [each for each in positions if each.kl is not None and not each.lossy]
    return fine[:MOST_MEASURED] or positions[:1]


def _best(found: Sequence[Position], gains: Sequence[Gain]) -> tuple[Position, Gain]:
    """The least lossy of those that gain about as much as the fastest."""
    most = max(gain.ratio for gain in gains)
    return next(
        (position, gain)
        for position, gain in zip(found, gains, strict=True)
        if gain.ratio >= ALIKE * most
    )


def _conditions(dense: Path, threads: int, cache_dtype: str, position: Position) -> Conditions:
    return Conditions(
        dense=content_of(dense),
        sparse=content_of(position.path),
        plan=position.family.name,
        plan_sha256=gains_kept.plan_sha256(position.path, position.family.name),
        sparsity=position.sparsity,
        threads=threads,
        cache_dtype=cache_dtype,
        machine=gains_kept.this_machine(),
    )


def _gain(opened: _Opened, dense: Path, position: Position, here: Conditions) -> Gain:
    """What a position gains here, measured if that has not been done."""
    gain = gains_kept.find(here)
    if gain is None:
        gain = opened.measure(dense, position)
        gains_kept.keep(here, gain)
    return gain


class _Opened:
    """Packed folders that are loaded, each once; a context manager that closes all but one."""

    def __init__(self, open_pack: Open, progress: Progress) -> None:
        self._open, self._progress = open_pack, progress
        self._loaded: dict[Path, Generator] = {}

    def __enter__(self) -> _Opened:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for path in list(self._loaded):
            self._close(path)

    def take(self, path: Path) -> Generator:
        """A generator for the caller to close."""
        generator = self._get(path)
        del self._loaded[path]
        return generator

    def measure(self, dense: Path, position: Position) -> Gain:
        """Decode a position and dense in turn, or one after the other where memory is short."""
        if dense != position.path and not self._fit(dense, position.path):
            return self._measure_apart(dense, position)
        with contextlib.ExitStack() as stack:
            sparse = self._following(position)
            if dense == position.path:
                plain = stack.enter_context(sparse.twin())
            else:
                plain = self._get(dense)
                plain.compile(self._progress)
            return measure_gain(plain, sparse, self._progress)

    def _measure_apart(self, dense: Path, position: Position) -> Gain:
        self._close(position.path)
        plain = self._get(dense)
        plain.compile(self._progress)
        before = token_seconds({"dense": plain}, self._progress)
        self._close(dense)
        sparse = self._following(position)
        return measure_apart(before, token_seconds({"sparse": sparse}, self._progress))

    def _following(self, position: Position) -> Generator:
        generator = self._get(position.path)
        generator.apply(position.setting)
        generator.compile(self._progress)
        return generator

    def _get(self, path: Path) -> Generator:
        if path not in self._loaded:
            self._loaded[path] = self._open(path)
        return self._loaded[path]

    def _close(self, path: Path) -> None:
        if path in self._loaded:
            self._loaded.pop(path).close()

    def _fit(self, *paths: Path) -> bool:
        """Whether those that are not in memory yet find room beside the others."""
        import psutil

        missing = [path for path in paths if path not in self._loaded]
        nbytes = sum(
            each.stat().st_size for path in missing for each in path.glob("model-*.safetensors")
        )
        return bool(nbytes + SPARE_BYTES < psutil.virtual_memory().available)
