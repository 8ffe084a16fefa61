"""Decoding and prefill against llama.cpp and ik_llama.cpp: the same file, the same threads.

All sides run interleaved and are timed where tokens go in and logits come out, without sampling.

llama.cpp has to be built from source, or it is compiled for an old CPU (3 min 38 s on 2 cores;
needs a C++ compiler and CMake):

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python '.[bench]'

It always runs in a process of its own: in this Python, or in the one that --peer-python names.

ik_llama.cpp, the fork with the fastest kernels for CPUs, is built with CMake in its repository's
folder; target llama is enough. Its flash-attention files take most of the compile time and are left
out (-DGGML_IQK_FLASH_ATTENTION=OFF; in August 2026 iqk_flash_attn.cpp then lacked two functions of
its header, which have to be added there and return 0 and false). Its attention is computed without
them, which was as fast at 0.5B. --ik names the folder that the libraries lie in or below. Weights
are repacked while it loads, as with -rtr 1 of its own programs.

For a CPU without AVX-512, build both with -DGGML_NATIVE=OFF -DGGML_AVX512=OFF and the GGML_...
options of that CPU (AVX, AVX2, FMA and F16C for an AMD Zen 3; pip takes a wheel that it built
before, unless --no-cache-dir forbids it), and name it with --as-cpu; its rows are then labelled
"as NAME". Results of other models stay in the results file.

--kinds stands for a file of each quantisation, made by llama.cpp from each --model. The files stay
in --folder, 16 GB for models of 0.5B and 1.5B; packs of them are removed again.

    python bench/peers.py --model smollm2-135m@wheel --ik ../ik_llama.cpp/build
    python bench/peers.py --synthetic 8b:Q4_0 --depths 0,2048,8192
    python bench/peers.py --model model.gguf --tasks prefill --prompts 128,512 --rounds 3
    python bench/peers.py --model 0.5B=small.gguf --kinds all --tasks decode --as-cpu znver3
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from pages.programs import quants_table
from shared.as_cpu import labelled
from shared.common import models_so_far, parser, save, say, thread_count
from shared.duel import PROMPT, Duel, add_peers, merged, show
from shared.models import DEFAULT_MODEL, gguf_of
from shared.quant_files import KINDS, passing_packs, quant_files
from shared.synthetic import FORMATS, SYNTHETIC, synthetic_gguf

from sparity_edge.system.folders import cache_root


class Contestant(NamedTuple):
    """A file, and what its report says of where it comes from."""

    label: str
    path: Path
    about: dict[str, Any]


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """What is to be measured."""
    models = [named(each) for each in options.model]
    if options.kinds:
        files = quant_files(
            models, options.kinds, options.folder, options.peer_python,
            thread_count(options.threads),
        )  # fmt: skip
        return [
            Contestant(
                labelled(f"{each.model} {each.kind}"), each.path,
                {
                    "of": labelled(each.model), "kind": each.kind,
                    "file_bytes": each.path.stat().st_size,
                },
            )
            for each in files
        ]  # fmt: skip
    models += synthetic(options.synthetic)
    dtype = f" {options.dtype}" if options.dtype else ""
    return [
        Contestant(labelled(label + dtype), path, {})
        for label, path in models or [named(DEFAULT_MODEL)]
    ]


def named(text: str) -> tuple[str, Path]:
    """The label and the file of NAME=FILE, or of a file or alias alone."""
    label, _, model = text.rpartition("=")
    return label or Path(model).stem, gguf_of(model)


def synthetic(wanted: list[str]) -> list[tuple[str, Path]]:
    """Files of random weights, by label."""
    found = []
    for each in wanted:
        name, _, number_format = each.partition(":")
        if name not in SYNTHETIC or number_format not in ("", *FORMATS):
            known = ", ".join(f"{name}:{kind}" for name in SYNTHETIC for kind in FORMATS)
            raise SystemExit(f"--synthetic {each} is none of {known}.")
        for kind in [number_format] if number_format else FORMATS:
            say(f"synthetic {name} in {kind}")
            found.append((f"synthetic-{name}-{kind}", synthetic_gguf(name, kind)))
    return found


def measure(contestant: Contestant, options: argparse.Namespace) -> dict[str, Any]:
    """One file on all sides; a pack of what was made for this is not kept."""
    passing = passing_packs(options.folder) if options.kinds else contextlib.nullcontext()
    with passing:
        duel = Duel(contestant.label, contestant.path, options.dtype, options)
        try:
            for depth in duel.depths if "decode" in options.tasks else ():
                duel.decode(depth)
            for tokens in options.prompts if "prefill" in options.tasks else ():
                duel.prefill(tokens)
        finally:
            duel.close()
    return {**duel.report, **contestant.about}


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(each) for each in text.split(",")]


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    result = parser(__doc__, "peers")
    add = result.add_argument
    add("--model", action="append", default=[], metavar="[NAME=]MODEL", help="a file or an alias")
    add(
        "--synthetic", action="append", default=[], metavar="NAME[:FORMAT]",
        help=f"random weights: {', '.join(SYNTHETIC)} in {' or '.join(FORMATS)}",
    )  # fmt: skip
    add(
        "--kinds", nargs="+", default=[], choices=("all", *KINDS), metavar="KIND",
        help=f"of files made of each --model: all, or some of {', '.join(KINDS)}",
    )  # fmt: skip
    add("--folder", type=Path, default=cache_root() / "bench", help="of those files")
    add("--make", action="store_true", help="only make them")
    add("--missing", action="store_true", help="only what the results file does not have yet")
    add("--dtype", help="our number format; default: the file's own")
    add("--tasks", type=lambda text: text.split(","), default="decode,prefill",
        help="default: %(default)s")  # fmt: skip
    add("--depths", "--depth", type=numbers, default="0", help="tokens of context, such as 0,8192")
    add("--prompts", type=numbers, default=str(PROMPT), help="tokens; default: %(default)s")
    add_peers(result)
    return result


def main() -> int:
    options = build_parser().parse_args()
    options.rounds = 3 if options.quick else options.rounds
    options.kinds = KINDS if "all" in options.kinds else options.kinds
    options.folder = options.folder.expanduser().resolve()
    found = contestants(options)
    if options.make:
        return 0
    known = models_so_far(options.out)
    reports = {}
    for each in found:
        if options.missing and each.label in known:
            continue
        reports[each.label] = measure(each, options)
        known[each.label] = merged(known.get(each.label, {}), reports[each.label])
        save(options.out, {"models": known})
    print(show(list(reports.values())))
    if options.kinds:
        print(f"\n{quants_table(known)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
