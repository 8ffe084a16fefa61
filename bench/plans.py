"""Decoding with sparsity plans against our own dense pack and llama.cpp, in one run, interleaved.

The text is the model's own greedy continuation of a prompt, because what is skipped depends on it;
every case reads the same tokens one at a time behind the same prompt, without sampling. Beside each
speed stand the measured active weight fraction and, where a text is named, the KL to dense. Results
of other models stay in the results file.

    python bench/plans.py --gguf model.gguf --packs ./neurons --text wiki.test.raw centred@0.7
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from shared.child import LlamaCpp
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.names import DENSE, PEER
from shared.side import Side, holders

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread


def measure(options: Any) -> dict[str, Any]:
    """One model at all settings."""
    threads = thread_count(options.threads)
    dense = Side(options.gguf, [DENSE], threads)
    sides = [Side(path, texts, threads) for path, texts in holders(options.packs, options.settings)
             .items()]  # fmt: skip
    ids = dense.continuation(options.tokens)
    depth = len(dense.prompt)
    peer = LlamaCpp(options.peer_python)
    about = peer(
        "load", path=str(options.gguf), threads=threads, positions=depth + 2 * len(ids), batch=512
    )
    peer("fill", depth=depth)

    def llama() -> float:
        return float(peer("decode", tokens=ids, depth=depth)["seconds"]) / len(ids)

    cases = {DENSE: dense.case(DENSE, ids), PEER: llama}
    for side in sides:
        cases |= {text: side.case(text, ids) for text in side.settings}
    samples = alternate(cases, options.rounds, pause=PAUSE, say=lambda text: say(text))
    divergence: dict[str, float] = {}
    if options.text:
        text = options.text.read_text(encoding="utf-8")
        for side in sides:
            divergence |= side.divergence(text, options.windows)
    peer("close")
    peer.close()
    active = {text: value for side in sides for text, value in side.active.items()}
    return {
        "machine": machine(threads),
        "peer": about,
        "tokens": len(ids),
        "prompt_tokens": depth,
        "rounds": options.rounds,
        "kl_windows": options.windows if options.text else 0,
        "rows": [
            {
                "case": name,
                "seconds_a_token": summary(values),
                "against_dense": summary(ratios(samples[DENSE], values)),
                "against_llama": summary(ratios(samples[PEER], values)),
                "active_weight_fraction": active.get(name, 1.0),
                "kl": divergence.get(name, 0.0 if name == DENSE else None),
            }
            for name, values in samples.items()
        ],
    }


def main() -> int:
    result = parser(__doc__, "plans")
    result.add_argument("--gguf", type=Path, required=True, help="the model, for the dense sides")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="folders with plans")
    result.add_argument("--label", help="of the rows (default: the file's name)")
    result.add_argument("--text", type=Path, help="of the KL; default: none is measured")
    result.add_argument("--windows", type=int, default=2, help="of the KL (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=32, help="of a sample")
    result.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    result.add_argument("settings", nargs="+", metavar="SETTING", help="auto:0.3, centred@0.7 ...")
    options = result.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    report = measure(options)
    known = models_so_far(options.out)
    known[options.label or options.gguf.stem] = report
    save(options.out, {"models": known})
    rows = [
        [
            row["case"],
            f"{1 / row['seconds_a_token']['median']:.1f}",
            with_spread(row["against_dense"]),
            with_spread(row["against_llama"]),
            f"{row['active_weight_fraction']:.3f}",
            "" if row["kl"] is None else f"{row['kl']:.4f}",
        ]
        for row in report["rows"]
    ]
    head = ["case", "tok/s", "against dense", "against llama.cpp", "active fraction", "KL"]
    print(table(head, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
