"""A Generator that needs no model: it answers from a script, with the real one's interface.

`install` puts it in the place of the real one, so that the command line can be tested without
weights; the tokenizer is one character a token.
"""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sparity_edge.errors import ContextError, SparityError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Statistics, Step

ECHO = "You said: {}"


class FakeGenerator:
    """Answers `script` items in turn: text, an exception to raise, or None for an echo.

    A KeyboardInterrupt inside a list of pieces is raised after those before it.
    """

    def __init__(self, script: Sequence[Any] = (), max_context: int = 200) -> None:
        self.script = list(script)
        self.max_context = max_context
        self.threads = 2
        self.sparsity = 0.0
        self.plan: str | None = None
        self.sparsity_choice: Any = None
        self.default_params = SamplingParams()
        self.template_args: Mapping[str, Any] | None = None
        self.prompts: list[Any] = []
        self.constraints: list[dict[str, str]] = []  # schema, regex or grammar of each call
        self.params: list[SamplingParams | None] = []
        self.loaded_with: dict[str, Any] = {}
        self.closed = False

    def info(self) -> dict[str, Any]:
        return {
            "path": "/models/fake",
            "source": "fake-model",
            "parameters": 134_515_008,
            "dtypes": ["int4", "int8"],
            "weight_bytes": 90_000_000,
            "load_seconds": 0.25,
            "model_context": 8192,
            "cache_bytes_per_token": 23040,
            "threads": self.threads,
        }

    def plans(self) -> dict[str, dict[str, float]]:
        return {}

    def set_plan(self, name: str | None = None, *, sparsity: float, force: bool = False) -> None:
        self.forced = force
        self.plan, self.sparsity = (name or "auto", sparsity) if sparsity else (None, 0.0)

    def compile(
        self, progress: Callable[[str, int, int], None], *, tokens: int | None = None
    ) -> None:
        assert tokens is None or tokens > 0
        progress("kernels", 1, 1)

    def compile_behind(self) -> None:
        pass

    def encode(self, prompt: str) -> list[int]:
        return [ord(each) for each in prompt]

    def stream(
        self,
        prompt: Any,
        params: SamplingParams | None = None,
        *,
        template_args: Mapping[str, Any] | None = None,
        **constraint: str,
    ) -> Iterator[Step]:
        self.template_args = template_args
        self.constraints.append(constraint)
        prompt = [dict(message) for message in prompt] if isinstance(prompt, list) else prompt
        self.prompts.append(prompt)
        self.params.append(params)
        used = len(_text(prompt))
        if used >= self.max_context:
            raise ContextError(f"The prompt has {used} tokens and the context {self.max_context}.")
        answer = self.script.pop(0) if self.script else None
        if answer is None:
            answer = ECHO.format(_text(prompt[-1:]) if isinstance(prompt, list) else prompt)
        if isinstance(answer, BaseException):
            raise answer
        return self._steps(used, list(answer), params or SamplingParams())

    def _steps(self, used: int, pieces: list[Any], params: SamplingParams) -> Iterator[Step]:
        if pieces[-1] not in ("<cut>", "<loop>"):
            pieces.append("")  # end of text
        for number, piece in enumerate(pieces, 1):
            if isinstance(piece, BaseException):
                raise piece
            finish = "stop" if number == len(pieces) else None
            if piece == "<cut>" or number in (params.max_tokens, self.max_context - used):
                piece, finish = piece.replace("<cut>", ""), "length"
            if piece == "<loop>":
                piece, finish = "", "loop"
            stats = Statistics(used, used // 2, number, 0.01, 0.01 * (number - 1), 0.75)
            yield Step(piece, 1, -0.5, finish, stats)
            if finish:
                return

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakeGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "".join(message["content"] for message in prompt if isinstance(message, Mapping))


class ScriptedInput:
    """A `LineInput` that types what it is given; exceptions are raised; then Ctrl-D."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.lines = list(lines)

    def read(self) -> str:
        line = self.lines.pop(0) if self.lines else EOFError
        if isinstance(line, str):
            return line
        raise line


def module(generator: FakeGenerator, refuse: SparityError | None = None) -> types.ModuleType:
    """A stand-in for `sparity_edge.generation.generator` whose Generator.load gives `generator`."""

    class Generator:
        @staticmethod
        def load(model: str, **options: Any) -> FakeGenerator:
            generator.loaded_with = {"model": model, **options}
            if refuse is not None:
                raise refuse
            return generator

    stand_in = types.ModuleType("sparity_edge.generation.generator")
    stand_in.Generator = Generator  # type: ignore[attr-defined]
    return stand_in


def main() -> None:
    """`python fakes.py WORDS`: the command line with a generator that talks without end."""
    from sparity_edge.cli.main import main as run

    generator = FakeGenerator([["word "] * 1_000_000], max_context=10_000_000)
    sys.modules["sparity_edge.generation.generator"] = module(generator)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
Run = Callable[..., tuple[int, str, str]]


class Input(io.TextIOWrapper):
    """Standard input that may call itself a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal
