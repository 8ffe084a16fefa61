"""The option `--lora` of commands that take a model: part of the model's name from `main` on."""

from __future__ import annotations

from typing import Any


def add_lora_option(parser: Any) -> None:
    """Put `--lora` on a command's line."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="DIR[:SCALE]",
        help="a LoRA adapter as peft writes it, times SCALE (default: 1); may be given again",
    )
