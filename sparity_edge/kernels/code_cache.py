"""Machine code of earlier runs, fetched from Numba's cache without starting Numba's compiler.

Numba looks through everything that it can compile before it so much as reads its cache: 85 ms and
some 30 MB in a process that finds all of its kernels there. Here that waits until one is missing.
Knows nothing of what a kernel is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys


class NotKept(Exception):  # noqa: N818 - it is no error
    """No earlier run has kept machine code of this function."""


class CodeCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function, read before the compiler is started.

    Args:
        function: compiled Python.
        only_kept: raise NotKept rather than have it compiled.
    """

    def __init__(self, function: Callable[..., Any], only_kept: bool = False) -> None:
        super().__init__(function)
        self._only_kept = only_kept

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What an earlier run has compiled for a signature; None, and a started compiler, if not.

        Args:
            sig: the signature, as Numba has it.
            target_context: of the CPU.

        Raises:
            NotKept: there is none, and it is not to be compiled.
        """
        rtsys.initialize(target_context)  # names that fetched code refers to
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
            if found is not None:
                return found
        if self._only_kept:
            raise NotKept
        return super().load_overload(sig, target_context)
