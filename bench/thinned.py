"""Decoding with sparsity plans against our own dense pack and llama.cpp, in one run, by turns.

The text is the model's own greedy continuation of a prompt, because what is skipped depends on it;
every case reads the same tokens one at a time behind the same prompt, without sampling. Beside each
speed stand the measured active weight fraction and, where a text is named, the KL to dense. Results
of other models stay in the results file.

    python bench/thinned.py --gguf model.gguf --packs ./neurons --text wiki.test.raw centred@0.7
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from shared.common import models_so_far, parser, save, say, thread_count

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, timed, with_spread

PROMPT = (
    "A laptop reads every weight of a language model once for each word it writes. Explain to a "
    "curious student why memory is the limit, and what could be left out without anybody noticing."
)
DENSE, PEER = "dense", "llama.cpp"


class Side:
    """One packed folder, dense or thinned.

    Args:
        path: a GGUF file or packed folder.
        settings: what it is to be measured at, texts that `Setting.parse` reads.
        threads: how many compute.
        dtype: number format of what has to be packed; None: the file's own.
    """

    def __init__(
        self, path: Path, settings: list[str], threads: int, dtype: str | None = None
    ) -> None:
        from sparity_edge import Generator
        from sparity_edge.plans.setting import Setting

        self.generator = Generator.load(path, dtype=dtype, threads=threads, notify=say)
        self.generator.compile()
        self.settings = {text: Setting.parse(text) for text in settings}
        self.prompt = self.generator.encode([{"role": "user", "content": PROMPT}])
        self.active: dict[str, float] = {}

    def continuation(self, count: int) -> list[int]:
        """The tokens that everybody reads."""
        from sparity_edge import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
        return list(self.generator.generate(self.prompt, params).token_ids)

    def case(self, text: str, ids: list[int]) -> Any:
        """A function that gives the seconds of a token at one setting."""
        model = self.generator.loaded.model

        def sample() -> float:
            self.generator.apply(self.settings[text])
            model.cache.trim(0)
            model.read(self.prompt)
            model.read(ids[:1], thin=True)  # records the operations
            fractions = []

            def read() -> None:
                for token in ids:
                    model.read([token], thin=True)
                    fractions.append(model.active_weight_fraction)

            seconds = timed(read) / len(ids)
            self.active[text] = sum(fractions) / len(fractions)
            return seconds

        return sample

    def divergence(self, text: str, windows: int) -> dict[str, float]:
        """KL to dense on a text, every window thinned from its fifth position on."""
        from sparity_edge.quality.divergence import divergences

        self.generator.sparse_prefill = True
        found = divergences(
            self.generator, text, list(self.settings.values()), windows=windows, stride=16
        )
        self.generator.sparse_prefill = False
        names = self.settings
        return {name: each.kl_mean for name, each in zip(names, found, strict=True)}


def holders(packs: list[Path], settings: list[str]) -> dict[Path, list[str]]:
    """Which folder carries the plan of each setting."""
    from sparity_edge.plans.plan_file import plan_names
    from sparity_edge.plans.setting import Setting

    found: dict[Path, list[str]] = {}
    for text in settings:
        plan = Setting.parse(text).plan
        home = next((pack for pack in packs if plan in plan_names(pack)), None)
        if home is None:
            raise SystemExit(f"None of --packs carries the plan of {text}.")
        found.setdefault(home, []).append(text)
    return found


def measure(options: Any) -> dict[str, Any]:
    """One model at all settings."""
    from peers import LlamaCpp

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
    samples = alternate(cases, options.rounds, pause=0.05, say=lambda text: say(text))
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
    result = parser(__doc__, "thinned")
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
