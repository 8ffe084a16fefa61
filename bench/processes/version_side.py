"""One version of this project in a process of its own: reads commands from a pipe, times answers.

Run by versions.py with PYTHONPATH naming the checkout. It uses the public names of the package and
nothing else, neither of the project nor of this folder, so that checkouts from before the rooms run
as well. One JSON object a line: {"do": "decode", ...} gives {"seconds": ...}. Several models may be
loaded, told apart by "name".
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from sparity_edge import Generator, SamplingParams

PROMPT = (5, 9, 23, 7, 41, 11, 3, 17)  # token ids in front of what is decoded


class Side:
    """The models of one version."""

    def __init__(self) -> None:
        self.generators: dict[str, Generator] = {}
        self.calls = 0

    def load(self, name: str, model: str, threads: int, **dial: Any) -> dict[str, Any]:
        """Load a model, packed and calibrated first if need be, and compile its kernels."""
        import sparity_edge

        if dial and hasattr(Generator, "sparsity_choice"):  # which follows plans that gain
            dial["force"] = True
        generator = Generator.load(model, threads=threads, notify=note, **dial)
        generator.compile()
        self.generators[name] = generator
        return {"package": os.path.dirname(sparity_edge.__file__), "path": str(generator.path)}  # noqa: PTH120

    def decode(self, name: str, tokens: int) -> dict[str, Any]:
        """Decode greedily behind a short prompt; seconds a token without the first, and the ids."""
        steps = self._stream(name, list(PROMPT), tokens + 1)
        ids = [next(steps).token_id]
        start = time.perf_counter()
        ids += [step.token_id for step in steps]
        return {"seconds": (time.perf_counter() - start) / tokens, "ids": ids[: tokens + 1]}

    def prefill(self, name: str, tokens: int) -> dict[str, Any]:
        """Read a prompt of which nothing is in the KV cache; seconds to the first token."""
        self.calls += 1
        vocab = self.generators[name].config.vocab_size
        ids = [2 + (self.calls + 7 * i) % 1000 % (vocab - 2) for i in range(tokens)]
        start = time.perf_counter()
        (first, *_) = self._stream(name, ids, 1)
        return {"seconds": time.perf_counter() - start, "ids": [first.token_id]}

    def _stream(self, name: str, ids: list[int], tokens: int) -> Any:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        generator = self.generators[name]
        generator.speculation = False  # versions from before it do not look there
        return iter(generator.stream(ids, params))


def note(text: str) -> None:
    """What is made on disk, on stderr."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing else may stand between the answers
    side = Side()
    for line in sys.stdin:
        command = json.loads(line)
        result = getattr(side, command.pop("do"))(**command)
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
