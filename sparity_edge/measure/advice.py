"""What would make this machine faster: sentences that follow from the facts `doctor` gathers.

Each rule looks at facts that were measured or read from the system, and says nothing where they are
unknown. Nothing is measured here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

Facts = Mapping[str, Any]
SAME_SPEED = 1.1  # threads that read less than this many times what one reads are of no use
BUSY = 0.5  # cores' worth of other work that is felt
LITTLE = 0.1  # share of memory below which the system starts to swap
LITTLE_DISK = 2 << 30  # bytes, the pack of a small model
OLD_KERNELS = 500 << 20  # bytes of machine code, of which one version has some 10 MB


def advice(facts: Facts) -> list[str]:
    """Sentences, the most useful first.

    Args:
        facts: as `doctor.examine` gives them.
    """
    rules = (_cores, _power, _others, _memory, _bandwidth, _features, _storage)
    return [sentence for rule in rules for sentence in rule(facts)]


def _cores(facts: Facts) -> Iterator[str]:
    cores, threads = facts["cores"], facts["machine"]["threads"]
    physical, allowed, quota = (cores[key] for key in ("physical", "allowed", "container_quota"))
    if physical and allowed and allowed < physical:
        yield f"This process may use {allowed} of {physical} cores; allow it all (see taskset)."
    if quota is not None and quota < threads:
        fewer = max(1, int(quota))
        hint = f"try --threads {fewer}, or " if fewer < threads else ""
        yield (
            f"The container may use {quota:g} cores' worth of time and {threads} threads "
            f"compute, so they are made to wait; {hint}raise its CPU limit."
        )
    if physical and threads > physical:
        yield (
            f"{threads} threads share {physical} cores; --threads {physical} is usually faster, "
            "since a core's second thread adds no bandwidth."
        )


def _power(facts: Facts) -> Iterator[str]:
    power = facts["power"]
    if power["on_battery"]:
        yield "The machine runs on its battery, which usually lowers the clock; plug it in."
    if power["saving"]:
        yield f"The processor saves power ({power['saving']}); choose a faster power profile."


def _others(facts: Facts) -> Iterator[str]:
    busy = facts["power"]["busy_cores"]
    if busy > BUSY:
        yield (
            f"Other processes keep {busy:.1f} of {facts['cores']['logical']} cores busy; "
            "decoding competes with them for cores."
        )


def _memory(facts: Facts) -> Iterator[str]:
    memory = facts["memory"]
    total = min(memory["total_bytes"], memory["container_limit_bytes"] or memory["total_bytes"])
    if memory["available_bytes"] < LITTLE * total:
        yield (
            f"Only {memory['available_bytes'] / 1e9:.1f} GB of memory are available; "
            "close programs, or a model may end up swapped out."
        )
    if memory["swapped_bytes"] and memory["swapped_bytes"] > LITTLE * total:
        yield (
            f"{memory['swapped_bytes'] / 1e9:.1f} GB are swapped out: memory was short; "
            "a model that is swapped is many times slower."
        )
    if memory["huge_pages"] == "never":
        yield (
            "Large pages are switched off (transparent_hugepage is never); set it to madvise: "
            "random rows of a sparse model are found faster."
        )


def _bandwidth(facts: Facts) -> Iterator[str]:
    measured = facts["bandwidth"]
    if measured is None or measured["threads"] < 2 or facts["power"]["busy_cores"] > BUSY:
        return  # nothing to compare, or measured beside other work
    one, every = (measured[f"{key}_bytes_per_second"] for key in ("one_thread", "all_threads"))
    if every < SAME_SPEED * one:
        yield (
            f"One thread reads {one / 1e9:.1f} GB/s and {measured['threads']} read "
            f"{every / 1e9:.1f}: memory is the limit, so more threads do not make decoding faster "
            "(they do for prompts)."
        )


def _features(facts: Facts) -> Iterator[str]:
    present, x86 = set(facts["machine"]["cpu_features"]), "sse2" in facts["machine"]["cpu_features"]
    if x86 and "avx512vnni" not in present:
        yield (
            "This processor has no AVX-512 VNNI: prompts are read more slowly than on one that "
            "has it."
        )
    if x86 and "avx2" not in present:
        yield "This processor has no AVX2: vectors are short, and everything takes longer."
    for variable in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        if os.environ.get(variable):
            yield f"{variable} is set, so kernels are not compiled for this processor; unset it."


def _storage(facts: Facts) -> Iterator[str]:
    cache, kernels = facts["storage"]["cache"], facts["storage"]["kernels"]
    if not kernels["writable"]:
        yield (
            f"{kernels['path']} cannot be written, so kernels may be compiled at every start; "
            "let NUMBA_CACHE_DIR name a folder that can be."
        )
    elif not kernels["compiled"]:
        yield "Kernels of this version are not compiled yet; the first chat does it, once."
    if kernels["used_bytes"] > OLD_KERNELS:
        yield (
            f"Compiled kernels of all versions take {kernels['used_bytes'] / 1e9:.1f} GB; "
            "sparity-edge cache clear --all frees it."
        )
    if cache["free_bytes"] is not None and cache["free_bytes"] < LITTLE_DISK:
        yield (
            f"The disk of {cache['path']} has {cache['free_bytes'] / 1e9:.1f} GB left; free some, "
            "or let SPARITY_EDGE_CACHE name a folder on another."
        )
