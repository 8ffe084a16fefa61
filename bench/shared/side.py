"""One packed folder as a side of a comparison: its settings, timed on a text of its own making.

What is skipped depends on the text, so the tokens are the model's greedy continuation of a prompt.
Knows neither the other sides nor what is made of the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.common import say

from sparity_edge.measure.rounds import timed

PROMPT = (
    "A laptop reads every weight of a language model once for each word it writes. Explain to a "
    "curious student why memory is the limit, and what could be left out without anybody noticing."
)


class Side:
    """One packed folder, dense or sparse.

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
            model.read(ids[:1], sparse=True)  # records the operations
            fractions = []

            def read() -> None:
                for token in ids:
                    model.read([token], sparse=True)
                    fractions.append(model.active_weight_fraction)

            seconds = timed(read) / len(ids)
            self.active[text] = sum(fractions) / len(fractions)
            return seconds

        return sample

    def divergence(self, text: str, windows: int) -> dict[str, float]:
        """KL to dense on a text, every window sparse from its fifth position on."""
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
        folder = next((pack for pack in packs if plan in plan_names(pack)), None)
        if folder is None:
            raise SystemExit(f"None of --packs carries the plan of {text}.")
        found.setdefault(folder, []).append(text)
    return found
