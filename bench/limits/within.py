"""The most that every plan skips within a KL: bytes of a token, the speed-up they bound, its speed.

For each plan of some packed folders the largest sparsity whose KL on held-out text is at most --kl,
by the evidence that is kept with the plan. A decoded token then reads so many bytes of decoder
layers and LM head; dense bytes over these are the most that skipping can gain, and what it gains is
measured, all plans and the dense pack taking turns on the same text.

    python bench/limits/within.py --model smollm2-135m@wheel --packs ./neurons ./input
    python bench/limits/within.py --model model.gguf --packs ./mixed --kl 0.02
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.as_cpu import labelled
from shared.common import DEFAULT_MODEL, PAUSE, models_so_far, parser, save, say, thread_count
from shared.names import DENSE
from shared.side import Side

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread

LEAST = 0.01  # of sparsity: a plan that may skip less than this has no place in the table


def settings_within(pack: Path, kl: float, threads: int) -> list[str]:
    """A position of the dial for each plan of a packed folder that may skip anything at all."""
    from converters.plan_evidence import ready_evidence
    from sparity_edge.model.opening import open_folder
    from sparity_edge.plans.plan_file import plan_names, read_plan

    found = []
    for plan in plan_names(pack):
        ready_evidence(pack, plan, threads)
        sparsity = read_plan(open_folder(pack), plan).sparsity_within(kl)
        if sparsity >= LEAST:
            found.append(f"{plan}:{sparsity:.3f}")
        else:
            say(f"{plan}: nothing can be skipped within KL {kl:g}")
    return found


def measure(options: Any) -> dict[str, Any]:
    """One model, its plans at their positions."""
    threads = thread_count(options.threads)
    positions = {pack: settings_within(pack, options.kl, threads) for pack in options.packs}
    dense = Side(Path(options.model), [DENSE], threads)
    sides = [Side(pack, texts, threads) for pack, texts in positions.items() if texts]
    ids = dense.continuation(options.tokens)
    cases = {DENSE: dense.case(DENSE, ids)}
    for side in sides:
        cases |= {text: side.case(text, ids) for text in side.settings}
    samples = alternate(cases, options.rounds, pause=PAUSE, say=lambda text: say(text))
    kls: dict[str, float] = {}
    if options.text:
        text = options.text.read_text(encoding="utf-8")
        for side in sides:
            kls |= side.divergence(text, options.windows)
    model = dense.generator.loaded.model
    whole = model.dense_layer_bytes + model.head_bytes
    rows = []
    for side in (dense, *sides):
        for text in side.settings:
            nbytes = side.active[text] * model.dense_layer_bytes + model.head_bytes
            rows.append(
                {
                    "case": text,
                    "bytes": round(nbytes),
                    "active_weight_fraction": side.active[text],
                    "bound": whole / nbytes,
                    "seconds_a_token": summary(samples[text]),
                    "against_dense": summary(ratios(samples[DENSE], samples[text])),
                    "kl_of_text": kls.get(text),
                }
            )
    return {
        "machine": machine(threads),
        "kl": options.kl,
        "tokens": len(ids),
        "rounds": options.rounds,
        "text": options.text.name if options.text else None,
        "rows": rows,
    }


def show(report: dict[str, Any]) -> str:
    """A line for each plan."""
    lines = [
        [
            row["case"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bound']:.2f}",
            with_spread(row["against_dense"]),
            "" if row["kl_of_text"] is None else f"{row['kl_of_text']:.4f}",
        ]
        for row in report["rows"]
    ]
    head = ["case", "MB a token", "speed-up by bytes", "measured", "KL of --text"]
    return table(head, lines, aligned=True)


def main() -> int:
    result = parser(__doc__, "within")
    result.add_argument("--model", default=DEFAULT_MODEL, help="for the dense side")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="folders with plans")
    result.add_argument("--kl", type=float, default=0.05, help="nats; default: %(default)s")
    result.add_argument("--label", help="of the rows (default: the model's name)")
    result.add_argument("--text", type=Path, help="of a KL beside; default: none is measured")
    result.add_argument("--windows", type=int, default=2, help="of that KL (default: %(default)s)")
    result.add_argument("--tokens", type=int, default=32, help="of a sample")
    options = result.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    report = measure(options)
    known = models_so_far(options.out)
    label = labelled(options.label or Path(options.model).stem)
    known[f"{label}, KL <= {options.kl:g}"] = report
    save(options.out, {"models": known})
    print(show(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
