"""Neurons fixed by the prompt (GRIFFIN, TDA): what they cost along a long answer, as a reference.

From the prompt alone a set of neurons is chosen for each layer; the answer is computed with these,
by ordinary products, without a choice for each token. Here everything is computed and the others
are taken away (`left_out`). The first 256 tokens of a window are the prompt, read in full, and the
rest of the text is the answer; KL to the dense model is told by distance from the prompt.

    griffin      s_i = sqrt(sum over tokens of (z_i / |z|)^2), z = g u (Dong and others, 2024)
    tda          s_i = mean over tokens of |z_i| |W_down[:, i]| (Ma and others, 2024, pooled)
    tda cett     the same s_i above the layer's threshold (`tails.py`): the share kept is a mean
    other text   as griffin, chosen from the prompt of the window before: what the prompt is worth
    each token   the largest |z_i| |W_down[:, i]| of every token: what fixing them costs
    rebuilt      as griffin, chosen anew from every 256 tokens that were read
    on drift     as rebuilt, but only where the text has drifted: where the mean input of the first
                 FFN over 256 tokens has a cosine below --drift to that of the text chosen from

Windows of one text follow a topic; where it changes, the answer goes over to the help of Python
after its first third.

Rows in the results file are kept, so a long run may be split by --ways and taken up again.

    python bench/limits/prompt_neurons.py --packs ./dense --text wiki.valid.raw
    python bench/limits/prompt_neurons.py --packs ./dense --text wiki.valid.raw --windows 2 \\
        --label Qwen2.5-Coder-1.5B --kept 0.5 --ways griffin "tda cett" "each token"
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from limits.left_out import divergence, largest, logits
from limits.tails import Observer, thresholds_of, weighed
from pages.limits import prompt_table
from shared.common import models_so_far, name_of_pack, of_packs, parser, say

from sparity_edge.model.prefixes.parts import CHUNK

WINDOW = 4 * CHUNK  # a prompt and three times as much of an answer
CETT, UNSEEN = "tda cett", "unseen"
WAYS = ("griffin", "tda", CETT, "other text", "each token", "rebuilt", "on drift")


class Chooser:
    """The neurons of every layer for each window, as they are chosen while it is read.

    Args:
        way: one of WAYS.
        kept: share of the neurons.
        norms: |W_down[:, i]| by layer.
        drift: cosine below which neurons are chosen anew, by way "on drift".
        thresholds: of each layer's pooled sizes, by way "tda cett".
    """

    def __init__(
        self, way: str, kept: float, norms: Any, drift: float, thresholds: Any = None
    ) -> None:
        self._way, self._kept, self._norms, self._drift = way, kept, norms, drift
        self._thresholds = thresholds
        self._chosen: dict[int, Any] = {}  # of the layer at hand, by window
        self._means: dict[int, Any] = {}  # by window: the first FFN's mean input it is chosen from
        self._drifted: set[tuple[int, int]] = set()  # windows and positions
        self.shares: dict[int, list[float]] = {}  # of the neurons, by layer, where it is no count
        self.cosines: list[tuple[int, float]] = []  # position, and cosine to what was chosen from

    @property
    def rebuilt(self) -> int:
        """How often a text had drifted."""
        return len(self._drifted)

    def __call__(self, layer: int, vectors: Any) -> Any:
        """Which neurons are computed for a chunk."""
        middle, window, at = vectors.mlp_mid, vectors.window, vectors.position
        count = round(self._kept * middle.shape[1])
        if layer == 0:
            self._follow(window, at, vectors.mlp_in.mean(axis=0))
        if self._way == "each token":
            return largest(np.abs(middle) * self._norms[layer], count) if at else None
        if at == 0:
            self._chosen[window] = self._choose(layer, middle, count)
            return None
        present = self._chosen[window - 1 if self._way == "other text" and window else window]
        if self._way == "rebuilt" or (self._way == "on drift" and (window, at) in self._drifted):
            self._chosen[window] = self._choose(layer, middle, count)
        return present

    def _choose(self, layer: int, middle: Any, count: int) -> Any:
        pooled = np.abs(middle).mean(axis=0) * self._norms[layer]
        if self._way == CETT:
            chosen = pooled > self._thresholds[layer]
            self.shares.setdefault(layer, []).append(float(chosen.mean()))
            return chosen
        if self._way == "tda":
            return largest(pooled, count)
        sizes = np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-30)
        return largest(((middle / sizes) ** 2).sum(axis=0), count)

    def _follow(self, window: int, at: int, mean: Any) -> None:
        """Notice in the first layer whether a text has drifted; the others go by that."""
        if at == 0:
            self._means[window] = mean
            return
        before = self._means[window]
        cosine = float(mean @ before / np.linalg.norm(mean) / np.linalg.norm(before))
        self.cosines.append((at, cosine))
        if cosine < self._drift:
            self._drifted.add((window, at))
            self._means[window] = mean


def measure(pack: Path, options: Any, threads: int) -> dict[str, Any]:
    """Rows by text, share and way: the KL of each quarter of an answer."""
    from converters.calibration.layer_weights import LayerWeights
    from converters.calibration.observe import dense_model
    from sparity_edge.model.opening import open_packed
    from sparity_edge.progress import silent

    packed = open_packed(pack)
    layers = range(packed.config.num_hidden_layers)
    norms = [np.linalg.norm(LayerWeights(packed, layer).down, axis=0) for layer in layers]
    rows = _rows_so_far(pack, options)
    with dense_model(packed, WINDOW, threads, silent) as model:
        texts = _texts(pack, packed, options)
        curves = _curves(model, norms, texts.pop(UNSEEN)) if CETT in options.ways else []
        for text, windows in texts.items():
            missing = [
                (kept, way)
                for kept in options.kept
                for way in options.ways
                if (text, kept, way) not in {(each["text"], each["kept"], each["way"])
                                             for each in rows}
            ]  # fmt: skip
            whole = logits(model, windows) if missing else None
            for kept, way in missing:
                thresholds, cett = thresholds_of(curves, kept) if way == CETT else (None, None)
                chooser = Chooser(way, kept, norms, options.drift, thresholds)
                other = logits(model, windows, chooser)
                told = np.stack([divergence(*pair) for pair in zip(whole, other)])[:, CHUNK:]
                del other
                parts = [float(each.mean()) for each in np.split(told, 3, axis=1)]
                row = {"text": text, "kept": kept, "way": way, "kl": parts}
                if cett is not None:
                    shares = [round(float(np.mean(each)), 3) for each in chooser.shares.values()]
                    row |= {"cett": cett, "shares": shares}
                places = sorted({at for at, _ in chooser.cosines})
                row["cosines"] = [
                    round(float(np.mean([c for at, c in chooser.cosines if at == place])), 4)
                    for place in places
                ]
                rows.append(row | {"rebuilt": chooser.rebuilt / len(windows)})
                told_kl = ", ".join(f"{each:.3f}" for each in parts)
                say(f"{text}, {kept:g} kept, {way}: KL {told_kl}; cosines {row['cosines']}")
    rows.sort(key=lambda row: (row["text"], -row["kept"], WAYS.index(row["way"])))
    return {"rows": rows, "windows": options.windows, "drift": options.drift}


def _rows_so_far(pack: Path, options: Any) -> list[dict[str, Any]]:
    """Those of this model that the results file has, if as many windows were read."""
    part = models_so_far(options.out).get(name_of_pack(pack, options), {})
    same = all(part.get(key) == getattr(options, key) for key in ("windows", "drift"))
    return list(part["rows"]) if same else []


def _curves(model: Any, norms: Any, windows: Any) -> list[Any]:
    """What thresholds keep and how much their tails weigh, by layer, on further windows."""
    from converters.calibration.layer_weights import LayerWeights

    seen = Observer(norms)
    logits(model, windows, seen)
    return [
        weighed(
            np.concatenate(z), norms[layer], LayerWeights(model.packed, layer).down,
            np.array(seen.pooled[layer]),
        )
        for layer, z in seen.sampled.items()
    ]  # fmt: skip


def _texts(pack: Path, packed: Any, options: Any) -> dict[str, Any]:
    """Windows of one topic, such that change it after a third of the answer, and further ones."""
    from converters.calibration.windows import read_documents, token_windows
    from sparity_edge.text.default_text import default_documents
    from sparity_edge.text.tokenizer import Tokenizer

    tokenizer, eos = Tokenizer.from_folder(pack), packed.config.eos_token_ids

    def some(documents: Any, between: bool = False) -> Any:
        every = token_windows(tokenizer, eos, documents, 1 << 30, WINDOW)
        step = max(1, len(every) // options.windows)
        return every[step // 2 if between else 0 :: step][: options.windows]

    documents = list(read_documents([options.text]))
    same, other = some(documents), some(default_documents())
    changed = same.copy()
    changed[:, 2 * CHUNK :] = other[:, : 2 * CHUNK]
    unseen = some(documents, between=True)[:, :CHUNK]
    return {UNSEEN: unseen, "one topic": same, "topic changes": changed}


def main() -> int:
    result = parser(__doc__, "prompt_neurons")
    result.add_argument("--packs", type=Path, nargs="+", required=True, help="packed folders")
    result.add_argument("--text", type=Path, required=True, help="prompts and answers")
    result.add_argument("--windows", type=int, default=4, help="default: %(default)s")
    result.add_argument("--kept", type=float, nargs="+", default=[0.7, 0.5])
    result.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    result.add_argument("--label", help="of the rows; default: the source's name")
    result.add_argument("--drift", type=float, default=0.96, help="default: %(default)s")
    options = result.parse_args()
    report = of_packs(options.packs, options, measure)
    print(prompt_table({"prompt_neurons": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
