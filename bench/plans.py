"""Decoding with sparsity plans against our own dense pack and llama.cpp, in one run, interleaved.

The text is the model's own greedy continuation of a prompt, because what is skipped depends on it;
every case reads the same tokens one at a time behind the same prompt, without sampling. Beside each
speed stand the measured active weight fraction and, where a text is named, the KL to dense. Results
of other models stay in the results file.

    python bench/plans.py --gguf model.gguf --packs ./neurons --text wiki.test.raw centred@0.7

With --dtype the weights are floats on our side, the setting of the CHESS paper. --torch names a
Python with torch, transformers, accelerate and gguf, whose number formats then stand in llama.cpp's
place. All is held at once: 18 GB for a model of 1.5B in bf16 with both of them, 11 without f32.

    sparity-edge convert model.gguf ./bf16 --dtype bf16 --layout neurons
    sparity-edge calibrate ./bf16 --methods chess
    python bench/plans.py --gguf model.gguf --dtype bf16 --packs ./bf16 --torch PYTHON chess@0.5
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from shared.as_cpu import labelled
from shared.child import Child, LlamaCpp, Torch
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.names import DENSE, PEER
from shared.side import Side, holders

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread

FLOATS = ("bf16", "f32")
PROMPT_ROOM = 512  # tokens that the prompt of a side fits into
AGAINST = {DENSE: "against_dense", PEER: "against_llama"}  # as rows name it


def measure(options: Any) -> dict[str, Any]:
    """One model at all settings."""
    threads = thread_count(options.threads)
    peers, about = started(options, threads)  # before our side: what loading takes is the most
    dense = Side(options.gguf, [DENSE], threads, options.dtype)
    sides = [Side(path, texts, threads) for path, texts in holders(options.packs, options.settings)
             .items()]  # fmt: skip
    ids = dense.continuation(options.tokens)
    depth = len(dense.prompt)

    def sample(peer: Child) -> float:
        return float(peer("decode", tokens=ids, depth=depth)["seconds"]) / len(ids)

    cases = {DENSE: dense.case(DENSE, ids)}
    for name, peer in peers.items():
        peer("fill", depth=depth)
        cases[name] = lambda peer=peer: sample(peer)
    for side in sides:
        cases |= {text: side.case(text, ids) for text in side.settings}
    samples = alternate(cases, options.rounds, pause=PAUSE, say=lambda text: say(text))
    divergence: dict[str, float] = {}
    if options.text:
        text = options.text.read_text(encoding="utf-8")
        for side in sides:
            divergence |= side.divergence(text, options.windows)
    for peer in peers.values():
        peer.close()
    active = {text: value for side in sides for text, value in side.active.items()}
    return {
        "machine": machine(threads),
        "peer": about,
        "dtype": options.dtype,
        "tokens": len(ids),
        "prompt_tokens": depth,
        "rounds": options.rounds,
        "kl_windows": options.windows if options.text else 0,
        "rows": [
            {
                "case": name,
                "seconds_a_token": summary(values),
                **{
                    AGAINST.get(other, f"against {other}"): summary(ratios(samples[other], values))
                    for other in (DENSE, *peers)
                },
                "active_weight_fraction": active.get(name, 1.0),
                "kl": divergence.get(name, 0.0 if name == DENSE else None),
            }
            for name, values in samples.items()
        ],
    }


def started(options: Any, threads: int) -> tuple[dict[str, Child], dict[str, Any]]:
    """The other programs by name, with the model loaded, and what they say of themselves."""
    path = str(options.gguf.resolve())
    if not options.torch:
        peer = LlamaCpp(options.peer_python)
        positions = PROMPT_ROOM + 2 * options.tokens
        about = peer("load", path=path, threads=threads, positions=positions, batch=512)
        return {PEER: peer}, about
    peers: dict[str, Child] = {f"torch {dtype}": Torch(options.torch) for dtype in options.floats}
    words = {"path": path, "threads": threads}
    return peers, {
        name: peer("load", dtype=dtype, **words)
        for (name, peer), dtype in zip(peers.items(), options.floats, strict=True)
    }


def show(report: dict[str, Any]) -> str:
    """A line for each case."""
    keys = [key for key in report["rows"][0] if key.startswith("against")]
    lines = [
        [
            row["case"],
            f"{1 / row['seconds_a_token']['median']:.1f}",
            *(with_spread(row[key]) for key in keys),
            f"{row['active_weight_fraction']:.3f}",
            "" if row["kl"] is None else f"{row['kl']:.4f}",
        ]
        for row in report["rows"]
    ]
    head = ["case", "tok/s", *(key.replace("_", " ") for key in keys), "active fraction", "KL"]
    return table(head, lines)


def main() -> int:
    result = parser(__doc__, "plans")
    result.add_argument("--gguf", type=Path, required=True, help="the model, for the dense sides")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="folders with plans")
    result.add_argument("--label", help="of the rows (default: the file's name)")
    result.add_argument("--text", type=Path, help="of the KL; default: none is measured")
    result.add_argument("--windows", type=int, default=2, help="of the KL (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=32, help="of a sample")
    result.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    result.add_argument("--dtype", choices=FLOATS, help="of dense; default: the file's own")
    result.add_argument("--torch", metavar="PYTHON", help="PyTorch in llama.cpp's place")
    result.add_argument(
        "--floats", nargs="+", default=FLOATS, choices=FLOATS, metavar="DTYPE",
        help="number formats of PyTorch; default: bf16 f32",
    )  # fmt: skip
    result.add_argument("settings", nargs="+", metavar="SETTING", help="auto:0.3, centred@0.7 ...")
    options = result.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    report = measure(options)
    known = models_so_far(options.out)
    known[labelled(options.label or options.gguf.stem)] = report
    save(options.out, {"models": known})
    print(show(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
