"""Machine code of earlier runs, fetched from Numba's cache without starting Numba's compiler.

Numba looks through everything that it can compile before it so much as reads its cache: 85 ms and
some 30 MB in a process that finds all of its kernels there. Here that waits until one is missing.
Knows nothing of what a kernel is.
"""

from __future__ import annotations

from typing import Any

from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys


class CodeCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function, read before the compiler is started."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What an earlier run has compiled for a signature; None, and a started compiler, if not.

        Args:
            sig: the signature, as Numba has it.
            target_context: of the CPU.
        """
        rtsys.initialize(target_context)  # names that fetched code refers to
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
            if found is not None:
                return found
        return super().load_overload(sig, target_context)
