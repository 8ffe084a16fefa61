"""Deja Vu's predictor: which neurons of an FFN a low-rank guess from its input finds, by its size.

Deja Vu (Liu and others, ICML 2023) guesses from the input x of an FFN which neurons matter, by
B A x with A (rank, hidden) and B (neurons, rank), and computes gate, up and down of those alone.
Here the two are fitted to the neurons that matter on calibration text, in closed form (ridge
regression, cut to a rank where it hurts the guesses least), and, with --epochs, on from there by
Adam on the weighted cross entropy of the paper. On held-out text it is told, by rank, how many of
the neurons that matter are among as many that are guessed, what share of the FFN's output the
guessed ones carry, and the KL divergence to the dense model if all layers compute those alone.
As many are guessed as matter on average; `oracle` knows them, and `frequency` guesses the same ones
for every token. Matter does: with ReLU a gate that is not zero; with SiLU, which has none, the
share --kept of the neurons with the largest |g u| |W_down[:, i]|.

    python bench/limits/predictor.py --packs ./dense --tiny llama_relu --text wiki.valid.raw
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from limits.left_out import Choice, divergence, largest, logits
from pages.limits import predictor_table
from shared.common import models_so_far, parser, save, say, thread_count

from sparity_edge.measure.machine import machine

WINDOW = 512
RIDGE = 1e-2  # of the mean variance of an input
BATCH, RATE = 1024, 1e-3  # tokens of a step, and the size of one (Adam)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Guess:
    """A fitted predictor: the larger (x - mean) A B + bias, the likelier a neuron matters."""

    first: Any  # A (hidden, rank)
    second: Any  # B (rank, neurons)
    mean: Any
    bias: Any

    def scores(self, x: Any) -> Any:
        """(tokens, neurons)."""
        return (x - self.mean) @ self.first @ self.second + self.bias


def closed_form(x: Any, matters: Any, ranks: list[int]) -> Iterator[Guess]:
    """Ridge regression of `matters` on x, cut to each rank where it changes its guesses least."""
    mean, bias = x.mean(axis=0), matters.mean(axis=0)
    centred = x - mean
    covariance = (centred.T @ centred).astype(np.float64) / len(x)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    inverse = (vectors * values**-0.5) @ vectors.T
    target = centred.T @ (matters - bias) / len(x)
    left, sizes, right = np.linalg.svd(inverse @ target, full_matrices=False)
    for rank in ranks:
        first = inverse @ left[:, :rank] * sizes[:rank]
        parts = (first, right[:rank], mean, bias)
        yield Guess(*(each.astype(np.float32) for each in parts))


def trained(guess: Guess, x: Any, matters: Any, epochs: int) -> Guess:
    """The guess after some epochs of Adam on cross entropy, weighted as in the paper.

    What matters weighs 1, what does not as much as the share that matters: w = mean + 0.005.
    """
    weight = np.float32(matters.mean() + 0.005)
    # Regression gives shares from 0 to 1; as logits they are spread about the odds of a neuron.
    odds = np.log((guess.bias + 0.01) / (1.01 - guess.bias)).astype(np.float32)
    weights = [guess.first.copy(), 4 * guess.second, odds]
    moments = [(np.zeros_like(each), np.zeros_like(each)) for each in weights]
    random, step = np.random.default_rng(0), 0
    for _ in range(epochs):
        for part in np.array_split(random.permutation(len(x)), max(1, len(x) // BATCH)):
            h, y = x[part] - guess.mean, matters[part]
            inner = h @ weights[0]
            share = 1 / (1 + np.exp(-np.clip(inner @ weights[1] + weights[2], -30, 30)))
            slope = (share - y) * np.where(y > 0, np.float32(1), weight) / np.float32(len(part))
            slopes = [h.T @ (slope @ weights[1].T), inner.T @ slope, slope.sum(axis=0)]
            step += 1
            for each, (first, second), back in zip(weights, moments, slopes):
                first += 0.1 * (back - first)
                second += 0.001 * (back**2 - second)
                size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
                each -= np.float32(RATE) * (first / (1 - 0.9**step)) / size
    return Guess(weights[0], weights[1], guess.mean, weights[2])


class Layer:
    """What one layer computes for a text, and which neurons matter."""

    def __init__(self, norms: Any, kept: float | None) -> None:
        self._norms, self._kept = norms, kept
        self._parts: list[tuple[Any, ...]] = []

    def __call__(self, vectors: Any) -> None:
        """Keep a chunk."""
        middle = np.abs(vectors.mlp_mid) * self._norms
        count = round((self._kept or 0) * middle.shape[1])
        matters = largest(middle, count) if count else middle > 0
        self._parts.append((vectors.mlp_in.copy(), matters, middle))

    def result(self) -> tuple[Any, ...]:
        """Inputs, which neurons matter, and how much: (tokens, ...) each."""
        return tuple(map(np.concatenate, zip(*self._parts)))


def quality(guess: Guess, x: Any, matters: Any, sizes: Any) -> tuple[float, float]:
    """Of as many neurons as matter on average: the recall, and their share of |middle|^2."""
    guessed = largest(guess.scores(x), max(1, round(matters.mean() * matters.shape[1])))
    carried = (np.where(guessed, sizes, 0) ** 2).sum() / (sizes**2).sum()
    return float((guessed & matters).sum() / matters.sum()), float(carried)


def measure(pack: Path, options: Any, threads: int) -> dict[str, Any]:
    """Rows by rank: mean recall and share over the layers, and the KL of all of them together."""
    from converters.calibration.layer_weights import LayerWeights
    from converters.calibration.observe import dense_model
    from sparity_edge.model.layer_run import LayerRun
    from sparity_edge.model.opening import open_packed
    from sparity_edge.progress import silent

    packed = open_packed(pack)
    config = packed.config
    kept = None if config.activation.zeroes else options.kept
    windows = _windows(pack, packed, options)
    learnt, held = windows[: -options.windows], windows[-options.windows :]
    ranks = [each for each in options.ranks if each <= config.hidden_size]
    names = ["frequency", *(f"{n} {r}" for r in ranks for n in _fits(options))]
    guesses: dict[str, list[Guess]] = {name: [] for name in names}
    told: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    shares: list[float] = []
    best: list[float] = []  # share of |middle|^2 that the largest carry
    with dense_model(packed, WINDOW, threads, silent) as model:
        with LayerRun(model, learnt) as run, LayerRun(model, held) as other:
            for index in range(config.num_hidden_layers):
                norms = np.linalg.norm(LayerWeights(packed, index).down, axis=0)
                texts = []
                for each in (run, other):
                    layer = Layer(norms, kept)
                    each.run(index, layer)
                    texts.append(layer.result())
                shares.append(float(texts[1][1].mean()))
                best.append(_carried(texts[1][2], shares[-1]))
                for name, guess in _guesses(texts[0], ranks, options):
                    guesses[name].append(guess)
                    told[name].append(quality(guess, *texts[1]))
                say(f"layer {index}: " + ", ".join(f"{n} {told[n][-1][0]:.3f}" for n in names))
        whole = logits(model, held)
        known = _own_choice(packed, shares)
        loss = float(divergence(whole, logits(model, held, known)).mean())
        rows = [{"fit": "oracle", "rank": 0, "size": 0.0, "recall": 1.0, "kl": loss}]
        rows[0]["carried"] = float(np.mean(best))
        for name in names:
            recall, carried = np.mean(told[name], axis=0)
            loss = float(
                divergence(whole, logits(model, held, _choice(guesses[name], shares))).mean()
            )
            rank = int(name.split()[1]) if " " in name else 0
            size = rank * (config.hidden_size + config.intermediate_size)
            size /= 3 * config.hidden_size * config.intermediate_size
            row = {"fit": name.split()[0], "rank": rank, "size": size}
            rows.append({**row, "recall": float(recall), "carried": float(carried), "kl": loss})
            say(f"{name}: recall {recall:.3f}, carries {carried:.3f}, KL {loss:.3f}")
    return {
        "activation": str(config.activation), "matter": float(np.mean(shares)),
        "tokens": int(learnt.size), "held_out": int(held.size), "rows": rows,
    }  # fmt: skip


def _fits(options: Any) -> tuple[str, ...]:
    return ("regression", "epochs") if options.epochs else ("regression",)


def _guesses(text: tuple[Any, ...], ranks: list[int], options: Any) -> Iterator[tuple[str, Guess]]:
    x, matters = text[0], text[1].astype(np.float32)
    nothing = np.zeros((x.shape[1], 0), np.float32)
    always = Guess(nothing, np.zeros((0, matters.shape[1]), np.float32), 0, matters.mean(axis=0))
    yield "frequency", always
    for rank, guess in zip(ranks, closed_form(x, matters, ranks)):
        yield f"regression {rank}", guess
        if options.epochs:
            yield f"epochs {rank}", trained(guess, x, matters, options.epochs)


def _carried(sizes: Any, share: float) -> float:
    """The share of |middle|^2 that as many neurons as matter carry at best."""
    chosen = largest(sizes, max(1, round(share * sizes.shape[1])))
    return float((np.where(chosen, sizes, 0) ** 2).sum() / (sizes**2).sum())


def _own_choice(packed: Any, shares: list[float]) -> Choice:
    """Of each layer as many neurons as matter on average, those of largest |g u| |W_down[:, i]|."""
    from converters.calibration.layer_weights import LayerWeights

    norms = [
        np.linalg.norm(LayerWeights(packed, layer).down, axis=0) for layer in range(len(shares))
    ]

    def choose(layer: int, vectors: Any) -> Any:
        count = max(1, round(shares[layer] * len(norms[layer])))
        return largest(np.abs(vectors.mlp_mid) * norms[layer], count)

    return choose


def _choice(guesses: list[Guess], shares: list[float]) -> Choice:
    """Of each layer as many neurons as matter on average, the likeliest."""

    def choose(layer: int, vectors: Any) -> Any:
        scores = guesses[layer].scores(vectors.mlp_in)
        return largest(scores, max(1, round(shares[layer] * scores.shape[1])))

    return choose


def _windows(pack: Path, packed: Any, options: Any) -> Any:
    """Windows to learn of, then those that are held out."""
    from converters.calibration.windows import token_windows
    from sparity_edge.text.tokenizer import Tokenizer

    text, eos = options.text.read_text(encoding="utf-8"), packed.config.eos_token_ids
    length = min(WINDOW, packed.config.max_position_embeddings)
    every = token_windows(Tokenizer.from_folder(pack), eos, [text], 1 << 30, length)
    count = max(1, options.tokens // length) + options.windows
    return every[:: max(1, len(every) // count)][:count]


def _tiny(name: str, folder: Path) -> Path:
    """A checkpoint of the tests, packed."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import build

    from converters.pack import convert
    from converters.pack_options import PackOptions
    from converters.sources import open_source

    with open_source(str(build(folder / "checkpoint", name))) as source:
        return convert(source, folder / name, PackOptions("f32", layout="dense"))


def main() -> int:
    result = parser(__doc__, "predictor")
    result.add_argument("--packs", type=Path, nargs="+", default=[], help="packed folders")
    result.add_argument("--tiny", nargs="+", default=[], help="checkpoints of tests/tiny_cases.py")
    result.add_argument("--text", type=Path, required=True, help="to learn of and to hold out")
    result.add_argument(
        "--tokens", type=int, default=8192, help="to learn of; default: %(default)s"
    )
    result.add_argument("--windows", type=int, default=2, help="held out; default: %(default)s")
    result.add_argument("--ranks", type=int, nargs="+", default=[8, 32, 128, 384])
    result.add_argument("--epochs", type=int, default=4, help="default: %(default)s; 0: none")
    result.add_argument("--kept", type=float, default=0.3, help="with SiLU; default: %(default)s")
    options = result.parse_args()
    threads = thread_count(options.threads)
    report = {"machine": machine(threads), "models": models_so_far(options.out)}
    with tempfile.TemporaryDirectory() as folder:
        packs = [*options.packs, *(_tiny(name, Path(folder)) for name in options.tiny)]
        for pack in packs:
            from sparity_edge.model.opening import open_folder

            named = pack.name if pack.parent == Path(folder) else None
            source = named or str(open_folder(pack).manifest.get("source", pack.name))
            report["models"][Path(source).stem] = measure(pack, options, threads)
            save(options.out, report)
    print(predictor_table({"predictor": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
