"""The option --as-cpu: our kernels compiled for a lesser CPU than this one.

Sets NUMBA_CPU_NAME and NUMBA_CPU_FEATURES to the features of this CPU without those that the other
one lacks, and starts the script anew, for Numba reads them once. Rows are then labelled "as NAME";
clock, caches and memory stay those of this machine. Other programs have to be built for that CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

NEWER = ("avx512", "avx10", "amx", "evex512", "gfni", "avxifma", "avxneconvert", "avxvnniint")
LACKS = {  # beginnings of LLVM's names of features
    "haswell": (*NEWER, "avxvnni", "vaes", "vpclmulqdq", "sse4a", "sha", "clzero", "adx", "clwb"),
    "znver3": (*NEWER, "avxvnni", "shstk"),  # Zen 3, laptops of 2021 and 2022
    "alderlake": (*NEWER, "sse4a", "clzero"),  # AVX2 with AVX-VNNI
}


class AsCpu(argparse.Action):
    """Starts the script anew with kernels for a CPU, unless that was done."""

    def __call__(self, *given: Any) -> None:
        from llvmlite import binding

        name = given[2]
        wanted = environment(name, dict(binding.get_host_cpu_features()))
        if any(os.environ.get(key) != value for key, value in wanted.items()):
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def environment(name: str, present: Mapping[str, bool]) -> dict[str, str]:
    """Return the variables that make Numba compile for a CPU.

    Args:
        name: of the CPU, one of `LACKS`.
        present: the features of this machine.
    """
    kept = {each: has and not each.startswith(LACKS[name]) for each, has in present.items()}
    listed = ",".join(f"{'+' if has else '-'}{each}" for each, has in sorted(kept.items()))
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": listed}


def labelled(name: str) -> str:
    """The name of a row: kernels for another CPU than this one say so."""
    cpu = os.environ.get("NUMBA_CPU_NAME")
    return f"{name} as {cpu}" if cpu else name
