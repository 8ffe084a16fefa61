"""Gains that were measured on this machine, kept in the pack cache: each is measured once.

A gain holds for two packs of one model, a position of the dial, a number of threads, a format of
the KV cache, a processor and a version of the kernels; where one of them differs it is measured
anew. Files here may be damaged or deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparity_edge.errors import FormatError
from sparity_edge.measure.gain import Gain
from sparity_edge.packed.manifest import content_of, read_manifest
from sparity_edge.system.atomic import replace_file
from sparity_edge.system.folders import gains_root
from sparity_edge.system.version import own_version

_MAX_BYTES = 1 << 14


@dataclass(frozen=True)
class Conditions:
    """What a gain holds for."""

    dense: str  # `content_of` the pack that is decoded densely
    sparse: str  # `content_of` the pack that carries the plan
    plan: str
    plan_sha256: str
    sparsity: float
    threads: int
    cache_dtype: str
    machine: str

    def file(self) -> Path:
        """Where the gain is kept."""
        text = json.dumps(asdict(self), sort_keys=True)
        return gains_root() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def plan_sha256(folder: Path, plan: str) -> str:
    """SHA-256, in hex, of a plan's file, by the manifest of the folder that carries it.

    Raises:
        FormatError: the folder has no valid manifest, or no such plan.
    """
    try:
        return str(read_manifest(folder)["files"][f"plan-{plan}.safetensors"]["sha256"])
    except KeyError:
        raise FormatError(f"{folder} carries no plan {plan!r}; calibrate makes one.") from None


def this_machine() -> str:
    """What the speed of kernels depends on here: the processor, and which kernels these are."""
    from sparity_edge.kernels.kernel import version_of_kernels
    from sparity_edge.kernels.simd.cpu import chosen
    from sparity_edge.measure.machine import cpu_name

    facts = [own_version(), version_of_kernels(), cpu_name(), *sorted(chosen().items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def find(conditions: Conditions) -> Gain | None:
    """The gain that was measured under these conditions; None where none was."""
    found = _read(conditions.file())
    return None if found is None or found[0] != conditions else found[1]


def keep(conditions: Conditions, gain: Gain) -> None:
    """Keep a gain; best effort, without the file it is measured again."""
    content = json.dumps({"conditions": asdict(conditions), "gain": asdict(gain)})
    with contextlib.suppress(OSError):
        gains_root().mkdir(parents=True, exist_ok=True)
        replace_file(conditions.file(), [content.encode()])


def kept_of(folder: Path, plan: str | None = None) -> Iterator[tuple[Conditions, Gain]]:
    """All gains on this machine of the plans of a packed folder, by plan and sparsity.

    Args:
        folder: that carries the plans.
        plan: one of them; None: all.

    Raises:
        FormatError: the folder has no valid manifest.
    """
    content, machine = content_of(folder), this_machine()
    found = [each for path in _files() if (each := _read(path)) is not None]
    for conditions, gain in sorted(found, key=lambda each: (each[0].plan, each[0].sparsity)):
        if (conditions.sparse, conditions.machine) != (content, machine):
            continue
        with contextlib.suppress(FormatError):
            same = conditions.plan_sha256 == plan_sha256(folder, conditions.plan)
            if same and plan in (None, conditions.plan):
                yield conditions, gain


def _files() -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(gains_root().glob("*.json"))
    return []


def _read(path: Path) -> tuple[Conditions, Gain] | None:
    try:
        with path.open("rb") as file:
            content: Any = json.loads(file.read(_MAX_BYTES))
        conditions = Conditions(**content["conditions"])
        gain = Gain(**{name: float(value) for name, value in content["gain"].items()})
        whole = min(asdict(gain).values()) > 0 and 0 <= float(conditions.sparsity) <= 1
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return (conditions, gain) if whole else None
