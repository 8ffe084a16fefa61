"""Zero gates: decoding a model with FATReLU that skips them, against reading everything.

A model of random weights, a few layers in the shape of a 1B; its threshold is set so that a share
of the gates is not zero, from that of ReLU on random weights (a half) to those that trained models
report (a third to a tenth). Packed once in layout ffn, where zero gates are skipped, and once in
layout dense, where they are not; tokens of both are timed interleaved.

    python bench/limits/zero_gates.py --dtypes int8 int4
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from pages.limits import zero_gates_table
from shared.common import parser, save, say, thread_count

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, timed

SHAPE = {
    "architectures": ["SparseLlamaForCausalLM"], "model_type": "sparsellama",
    "hidden_act": "fatrelu", "hidden_act_param": 0.0, "hidden_size": 2048,
    "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 4,
}  # fmt: skip
# Gates of random weights have a spread of 1.6 (tests/tiny.py): thresholds in units of it.
THRESHOLDS = (0.0, 0.84, 1.28, 1.65)
SPREAD = 1.6


def packs(folder: Path, dtype: str, layers: int) -> dict[str, Any]:
    """The model in both layouts, read into memory."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import tiny
    from tiny_cases import Case

    from converters.pack import convert
    from converters.pack_options import PackOptions
    from converters.sources import open_source
    from sparity_edge.model.opening import open_packed

    case, source = Case({**SHAPE, "num_hidden_layers": layers}, storage="BF16"), folder / "source"
    if not source.exists():
        source.mkdir()
        tiny.write_json(source / "config.json", tiny.config_of(case))
        tiny.write_tokenizer(source, case)
        tiny.write_safetensors(source / "model.safetensors", tiny.make_tensors(case))
    found = {}
    for layout in ("dense", "ffn"):
        with open_source(str(source)) as opened:
            options = PackOptions(dtype, layout=layout)
            found[layout] = open_packed(convert(opened, folder / f"{dtype}-{layout}", options))
    return found


def measure(packed: dict[str, Any], threshold: float, rounds: int, threads: int) -> dict[str, Any]:
    """One row: how many gates are not zero, bytes read, and seconds of a token, interleaved."""
    from sparity_edge.kernels.program.machine import ThreadedMachine
    from sparity_edge.model.model import Model
    from sparity_edge.progress import silent

    models = {}
    for layout, each in packed.items():
        activation = replace(each.config.activation, threshold=threshold)
        own = replace(each, config=replace(each.config, activation=activation))
        models[layout] = Model(own, ThreadedMachine(threads), 256)
        models[layout].compile(silent)
        models[layout].read([1, 7, 8, 9, 10])
        models[layout].read([11])
    random, gates, active = np.random.default_rng(0), [], []

    def token(layout: str) -> float:
        model, ids = models[layout], [int(random.integers(5, 280))]
        seconds = timed(lambda: model.read(ids))
        if layout == "ffn":
            gates.append(model.densities["gate"])
            active.append(model.active_weight_fraction)
        return seconds

    found = alternate({layout: partial(token, layout) for layout in models}, rounds)
    for model in models.values():
        model.close()
    row = {"not_zero": float(np.mean(gates)), "active": float(np.mean(active))}
    row |= {layout: summary(each) for layout, each in found.items()}
    return row | {"against_dense": summary(ratios(found["dense"], found["ffn"]))}


def main() -> int:
    result = parser(__doc__, "zero_gates")
    result.add_argument("--dtypes", nargs="+", default=["int8", "int4"])
    result.add_argument("--layers", type=int, default=6, help="default: %(default)s")
    options = result.parse_args()
    threads, rounds = thread_count(options.threads), 3 * options.rounds
    report: dict[str, Any] = {"machine": machine(threads), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes:
            packed = packs(Path(folder), dtype, options.layers)
            for threshold in THRESHOLDS:
                row = measure(packed, SPREAD * threshold, rounds, threads)
                report["rows"].append({"dtype": dtype, **row})
                faster = row["against_dense"]["median"]
                say(f"{dtype}, {row['not_zero']:.2f} not zero: {faster:.2f} times as fast")
    save(options.out, report)
    print(zero_gates_table({"zero_gates": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
