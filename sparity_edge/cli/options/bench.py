"""The options of `bench`, in llama-bench's words; lists are separated by commas and multiply.

`--help` must not wait for NumPy, so this module imports nothing heavy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from sparity_edge.choices import DTYPES, KV_DTYPES

FORMATS = ("md", "json", "jsonl", "csv")

Value = TypeVar("Value")


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Put the options of `bench` on a parser; the model comes beside them."""
    tests = parser.add_argument_group("tests (0 leaves one out)")
    tests.add_argument(
        "-p", "--n-prompt", type=_list(_count), default=[512], metavar="N,...",
        help="read a prompt of N tokens (default: 512)",
    )  # fmt: skip
    tests.add_argument(
        "-n", "--n-gen", type=_list(_count), default=[128], metavar="N,...",
        help="decode N tokens one after another (default: 128)",
    )  # fmt: skip
    tests.add_argument(
        "-pg", type=_pair, action="append", default=[], metavar="P,N", dest="pairs",
        help="read a prompt of P tokens and decode N; may be repeated (default: none)",
    )  # fmt: skip
    tests.add_argument(
        "-s", "--speculate", type=_list(_positive), default=[], metavar="N,...",
        help="read N tokens in one pass, as guesses are checked; speculation goes by the prices "
        "of -s 1,2,4,8 from then on (default: none)",
    )  # fmt: skip
    tests.add_argument(
        "-d", "--depth", type=_list(_count), default=[0], metavar="N,...",
        help="tokens of context before each test (default: 0)",
    )  # fmt: skip
    tests.add_argument(
        "-b", "--batch", type=_list(_positive), default=[1], metavar="N,...",
        help="sequences that are decoded together, 8 at most (default: 1)",
    )  # fmt: skip
    tests.add_argument(
        "-r", "--repetitions", type=_positive, default=5, metavar="N",
        help="interleaved rounds of all cases (default: 5)",
    )  # fmt: skip
    _add_configurations(parser)
    parser.add_argument(
        "-o", "--output", choices=FORMATS, default="md", help="what to write (default: md)"
    )
    parser.add_argument(
        "--json", action="store_const", const="json", dest="output", help="short for -o json"
    )


def _add_configurations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("configurations")
    group.add_argument(
        "-t", "--threads", type=_list(_positive), default=[None], metavar="N,...",
        help="threads (default: all physical cores)",
    )  # fmt: skip
    group.add_argument(
        "--dtype", type=_list(_one_of(DTYPES)), default=[None], metavar="NAME,...",
        help=f"number formats, of {', '.join(DTYPES)} (default: integers stay as they are, "
        "all else becomes int8)",
    )  # fmt: skip
    group.add_argument(
        "--sparsity", type=_list(_number), metavar="S,...",
        help="shares of weight bytes to skip (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--level", type=_list(_number), metavar="L,...",
        help="the plan's own levels, in place of --sparsity",
    )  # fmt: skip
    group.add_argument(
        "--plan", type=_list(str), default=[None], metavar="NAME,...",
        help="sparsity plans to follow (default: the model's own)",
    )  # fmt: skip
    group.add_argument(
        "--cache-dtype", choices=KV_DTYPES,
        help="number format of the KV cache (default: bf16, or f32 where all weights are)",
    )  # fmt: skip
    group.add_argument(
        "--sparse-prefill", action="store_true", help="sparsify prefill too, all but four tokens"
    )
    group.add_argument(
        "--full-head",
        action="store_true",
        help="compute all logits, also where few of them can matter",
    )
    group.add_argument("--offline", action="store_true", help="use only what is on this machine")


def _list(read: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """A reader of what commas separate; what is named twice counts once."""

    def several(text: str) -> list[Value]:
        return list(dict.fromkeys(read(part.strip()) for part in text.split(",")))

    return several


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _positive(text: str) -> int:
    if (number := _count(text)) < 1:
        raise argparse.ArgumentTypeError("0 is too little; give 1 or more")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _pair(text: str) -> tuple[int, int]:
    numbers = [_positive(part.strip()) for part in text.split(",")]
    if len(numbers) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not P,N, such as 512,128")
    return numbers[0], numbers[1]


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def one(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return text

    return one


BENCH_EXAMPLES = """All configurations are interleaved, round by round, with streaming reads of
memory between them: what slows the machine down for a while slows all of them. Tokens are timed
as a user gets them, sampling included. Peak memory is that of a process of its own. KL is what
calibration measured of the plan on held-out text, in nats a token.

examples:
  sparity-edge bench
  sparity-edge bench ./my-model -p 0 -n 64 -t 1,2,4
  sparity-edge bench model.gguf --sparsity 0,0.3,0.5 --depth 0,2048 -o csv > speed.csv
  sparity-edge bench org/name --dtype int8,int4 --json
"""
