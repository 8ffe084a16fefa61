"""What the CPU that kernels are compiled for can do, as LLVM names its features.

Numba compiles for the host unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise. Each CPU has
a kernel cache of its own, so kernels may differ by these features. A name alone, other than
"generic", takes no feature of the host away: to be another CPU takes both.
"""

from __future__ import annotations

import functools


@functools.cache
def features() -> frozenset[str]:
    """Names of the features that are present, such as "avx2" or "avx512vnni"."""
    from numba.core.registry import cpu_target

    listed = cpu_target.target_context.codegen()._tm_features
    return frozenset(name[1:] for name in listed.split(",") if name.startswith("+"))


# What products of integers are made of, by LLVM feature, the best first.
_BYTES = {
    "avx512vnni": "64 pairs in one instruction (vpdpbusd, AVX-512 VNNI)",
    "avxvnni": "32 pairs in one instruction (vpdpbusd, AVX-VNNI)",
    "i8mm": "16 pairs in one instruction (usdot, I8MM)",
}
_WORDS = {
    "avx512vnni": "32 pairs in one instruction (vpdpwssd, AVX-512 VNNI)",
    "avxvnni": "16 pairs in one instruction (vpdpwssd, AVX-VNNI)",
    "avx512bw": "32 pairs in two instructions (vpmaddwd, AVX-512)",
    "avx2": "16 pairs in two instructions (vpmaddwd, AVX2)",
}


def _first_of(names: dict[str, str]) -> str:
    return next((name for name in names if name in features()), "")


def byte_dot() -> str:
    """The feature that multiplies bytes and adds them by fours, or nothing."""
    return _first_of(_BYTES)


def word_dot() -> str:
    """The feature that multiplies 16-bit integers and adds them by twos, or nothing."""
    return _first_of(_WORDS)


def rounds_to_bytes() -> bool:
    """Whether prompts round activations to bytes: AVX2 multiplies those at half of the cost."""
    return word_dot() == "avx2"


def has_spare_adders() -> bool:
    """Whether a core adds in more places than it multiplies: AMD does, whose CPUs have sse4a."""
    return word_dot() == "avx512vnni" and "sse4a" in features()


def chosen() -> dict[str, str]:
    """What kernels are compiled to on this CPU, by the part of the work it serves."""
    import llvmlite
    import numba
    from numba.core.registry import cpu_target

    words = _WORDS.get(word_dot(), "what the compiler makes of them")
    half = "F16C" if "f16c" in features() else "integer arithmetic"
    vectors = next(
        (text for name, text in _VECTORS.items() if name in features()), "what the baseline has"
    )
    return {
        "cpu": cpu_target.target_context.codegen()._get_host_cpu_name(),
        "vectors": vectors,
        "products_of_bytes": _BYTES.get(byte_dot(), f"widened to 16 bits: {words}"),
        "products_of_words": words,
        "float16_scales": half,
        "compiler": f"Numba {numba.__version__}, llvmlite {llvmlite.__version__}",
    }


_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "neon": "NEON", "sse2": "SSE2"}
