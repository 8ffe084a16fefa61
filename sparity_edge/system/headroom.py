"""How much more memory this process may take, by every limit that the system tells of.

Address space (`ulimit -v`), data (`ulimit -d`), control groups of a container or service, and the
memory of the machine. A model that does not fit is refused before a weight is read: otherwise the
system ends the process without a word, or it swaps for minutes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sparity_edge.errors import ResourceError
from sparity_edge.system.host import control_groups

# Files of a control group: the limit, what is in use, and how counts of memory.stat begin.
_VERSION_2 = ("memory.max", "memory.current", "")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


# Address space that importing the compiler takes and compiling all kernels after it, measured on
# Linux: 0.3 GB and 0.1 GB.
COMPILER_SPACE = 400_000_000


def demand_compiler_space() -> None:
    """Refuse to import the compiler where a limit of this process would stop it half-way.

    Raises:
        ResourceError: a limit is below what it takes.
    """
    if "llvmlite.binding" not in sys.modules:
        _demand(COMPILER_SPACE, "The compiler of the kernels", _of_process())


def demand_memory(nbytes: int, what: str) -> None:
    """Refuse what takes more memory than there is.

    Args:
        nbytes: how much it takes.
        what: what it is, as the beginning of a sentence.

    Raises:
        ResourceError: a limit is below that.
    """
    _demand(nbytes, what, limits(), ", or use a smaller model or --dtype")


def _demand(
    nbytes: int, what: str, known: Iterable[tuple[int, str, str]], otherwise: str = ""
) -> None:
    for left, limit, remedy in known:
        if nbytes > left:
            raise ResourceError(
                f"{what} takes {size_text(nbytes)} of memory and {limit} leaves {size_text(left)}; "
                f"{remedy}{otherwise}."
            )


def limits() -> Iterator[tuple[int, str, str]]:
    """(bytes that are left, which limit leaves them, what would help), for each known limit."""
    yield from _of_process()
    for names, of in ((_VERSION_2, ""), (_VERSION_1, "memory")):
        for place in control_groups(of):
            if (left := _of_group(place, names)) is not None:
                yield left, "the limit of this container or service", "raise that limit"
    yield from _of_machine()


def _of_process() -> Iterator[tuple[int, str, str]]:
    if sys.platform == "win32":
        return
    import resource

    import psutil

    used = psutil.Process().memory_info()
    for name, taken, option in (("RLIMIT_AS", used.vms, "-v"), ("RLIMIT_DATA", _data(used), "-d")):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield max(0, soft - taken), f"the limit `ulimit {option}` of this process", "raise it"


def _data(used: object) -> int:
    """Bytes of the process that RLIMIT_DATA counts."""
    return int(getattr(used, "data", 0))


def _of_group(place: Path, names: tuple[str, str, str]) -> int | None:
    """Bytes that a control group has left; pages of files do not count: the system drops them."""
    most, taken = _number(place, names[0]), _number(place, names[1])
    if most is None or taken is None:
        return None
    dropped = 0
    with contextlib.suppress(OSError, ValueError):
        lines = (place / "memory.stat").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split() for line in lines)
        dropped = sum(
            int(fields.get(f"{names[2]}{kind}_file", 0)) for kind in ("active", "inactive")
        )
    return max(0, most - max(0, taken - dropped))


def _number(place: Path, name: str) -> int | None:
    try:
        return int((place / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _of_machine() -> Iterator[tuple[int, str, str]]:
    import psutil

    memory, swap = psutil.virtual_memory(), 0
    with contextlib.suppress(OSError, RuntimeError):
        swap = psutil.swap_memory().free
    if sys.platform == "linux":  # what it calls available it can really give; others can give more
        yield memory.available + swap, "this machine", "close other programs"
    else:
        yield memory.total + swap, "this machine", "use another machine"


def size_text(nbytes: int) -> str:
    """Bytes as GB, or MB where they are fewer.

    Args:
        nbytes: how many.
    """
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
