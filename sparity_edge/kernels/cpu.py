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


def has_spare_adders() -> bool:
    """Whether a core adds in more places than it multiplies: AMD does, whose CPUs have sse4a."""
    return has_byte_dot() and "sse4a" in features()


def chosen() -> dict[str, str]:
    """What kernels are compiled to on this CPU, by the part of the work it serves."""
    import llvmlite
    import numba
    from numba.core.registry import cpu_target

    wide = "one instruction for {} pairs ({}, AVX-512 VNNI)"
    widened = "bytes widened to 16 bits"
    half = "F16C" if "f16c" in features() else "integer arithmetic"
    vectors = next(
        (text for name, text in _VECTORS.items() if name in features()), "what the baseline has"
    )
    return {
        "cpu": cpu_target.target_context.codegen()._get_host_cpu_name(),
        "vectors": vectors,
        "products_of_bytes": wide.format(64, "vpdpbusd") if has_byte_dot() else widened,
        "products_of_words": wide.format(32, "vpdpwssd") if has_byte_dot() else widened,
        "float16_scales": half,
        "compiler": f"Numba {numba.__version__}, llvmlite {llvmlite.__version__}",
    }


_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "neon": "NEON", "sse2": "SSE2"}
