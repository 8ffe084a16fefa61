"""What the CPU that kernels are compiled for can do, as LLVM names its features.

Numba compiles for the host unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise, and keeps
caches of different CPUs apart; kernels may therefore differ by what is asked here.
"""

from __future__ import annotations

import functools


@functools.cache
def features() -> frozenset[str]:
    """Names of the features that are present, such as "avx2" or "avx512vnni"."""
    from numba.core.registry import cpu_target

    listed = cpu_target.target_context.codegen()._tm_features
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))


def has_byte_dot() -> bool:
    """Whether one instruction multiplies 64 pairs of bytes and adds them by fours."""
    return "avx512vnni" in features()
