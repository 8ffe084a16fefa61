"""The folded matrix of centred gates in fewer bits: what its rounding costs.

M = W_down diag(c) W_up is made anew from the weights of a packed folder and the centres of its
plan, stored in each number format, and the plan followed with it: KL to the dense model on text,
and the bytes of M as a share of the decoder layers of a dense pack.

    python bench/limits/folded.py --packs ./neurons --text ../shared/data/wikitext2/wiki.valid.raw
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages.limits import folded_table
from shared.common import of_packs, parser, say

FORMATS = ("f32", "int8", "int6k", "int4")
PLAN, WINDOW = "centred", 1024


def stored(matrix: Any, dtype: str) -> Any:
    """M (hidden, hidden) by outputs in a number format; None where its rows do not fit it."""
    from converters.numbers.layout_bytes import pack_matrix
    from converters.numbers.quantize import quantize, quantize_sixes
    from sparity_edge.packed.layout import SUPERBLOCK, Layout, PackedMatrix

    values = matrix.astype("float32")
    if dtype == "f32":
        layout = Layout(dtype, "output", values.shape)
        return PackedMatrix(layout, pack_matrix(values, layout))
    if dtype == "int6k":
        if values.shape[1] % SUPERBLOCK:
            return None
        numbers = quantize_sixes(values, "M")
    else:
        numbers = quantize(values, dtype, 32, "M")
    minimum = numbers.minimums is not None
    layout = Layout(numbers.dtype, "output", values.shape, numbers.group, minimum)
    return PackedMatrix(layout, pack_matrix(numbers, layout))


def measure(pack: Path, options: Any, threads: int) -> dict[str, Any]:
    """KL of the plan of one packed folder by level and format of M."""
    from converters.allocate import evidence
    from converters.calibration.layer_weights import LayerWeights
    from converters.calibration.observe import dense_model
    from converters.calibration.windows import token_windows
    from converters.methods.centred import folded
    from sparity_edge.model.opening import open_folder
    from sparity_edge.packed.folder import read_weights
    from sparity_edge.plans.plan import NEURONS
    from sparity_edge.plans.plan_file import read_plan
    from sparity_edge.progress import silent
    from sparity_edge.text.tokenizer import Tokenizer

    folder = open_folder(pack)
    packed, family = read_weights(folder), read_plan(folder, PLAN)
    tokenizer = Tokenizer.from_folder(pack)
    text = [options.text.read_text(encoding="utf-8")]
    every = token_windows(tokenizer, folder.config.eos_token_ids, text, 1 << 30, WINDOW)
    windows = every[:: len(every) // options.windows][: options.windows]
    matrices = []
    for layer, centre in enumerate(family.centres[NEURONS]):
        weights = LayerWeights(packed, layer)
        matrices.append(folded(weights.up, weights.down, centre))
    rows = []
    with dense_model(packed, WINDOW, threads, silent) as model:
        for dtype in options.formats:
            means = tuple(stored(matrix, dtype) for matrix in matrices)
            if any(mean is None for mean in means):
                say(f"{pack}: rows of {matrices[0].shape[1]} do not fit {dtype}")
                continue
            of_format = replace(family, means=means)
            plans = [of_format.at_level(level) for level in options.levels]
            nbytes = sum(mean.layout.nbytes for mean in means)
            found = evidence.measure(model, plans, windows)
            for level, each in zip(options.levels, found):  # large KL ends a list early
                rows.append({"format": dtype, "level": level, "kl": each.kl, "bytes": nbytes})
                say(f"{dtype} {PLAN}@{level:g} KL {each.kl:.4f}")
        dense_bytes = model.dense_layer_bytes
    return {"rows": rows, "dense_layer_bytes": dense_bytes, "windows": len(windows)}


def main() -> int:
    result = parser(__doc__, "folded")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="that carry `centred`")
    result.add_argument("--text", type=Path, required=True, help="of the KL")
    result.add_argument("--windows", type=int, default=3, help="default: %(default)s")
    result.add_argument("--levels", type=float, nargs="+", default=[0.5, 0.7])
    result.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    options = result.parse_args()
    report = of_packs(options.packs, options, measure)
    print(folded_table({"folded": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
