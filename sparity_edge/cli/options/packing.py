"""The options of `convert`, `verify` and `cache`; imports nothing heavy: `--help` is quick.

Knows nothing of packing: `commands/packing.py` carries the commands out.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.choices import DTYPES, LAYOUTS, ROTATIONS
from sparity_edge.cli.options.lora import add_lora_option
from sparity_edge.cli.options.plan import Add
from sparity_edge.terminal.json_output import add_json_option

MODULE = "packing"
SOURCE_HELP = (
    "a packed folder, a Hugging Face folder, a GGUF file, a Hub id (org/name, "
    "org/name@revision or org/name:Q4_K_M) or an alias"
)


def add_convert(commands: Any, add: Add) -> None:
    """Put `convert` on the command line; `add` is as for `add_plan_commands`."""
    parser = add(commands, "convert", "write a model as a packed folder", _CONVERT_EXAMPLES)
    parser.set_defaults(module=MODULE)
    parser.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "out",
        nargs="?",
        metavar="OUT",
        help="folder (default: ./NAME-DTYPE, or ./NAME-packed where --dtype is not given)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="number format (default: integers stay as they are, all else becomes int8)",
    )
    parser.add_argument(
        "--group", type=int, choices=(32, 64, 128), help="input channels that share a scale"
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="what can be skipped: dense nothing, ffn the FFN's neurons, neurons these and inputs "
        "of q and o, mixed neurons and all inputs but those of up and down, input all inputs "
        "(default: dense, ffn where the model's FFN has ReLU, mixed with --calibrate)",
    )
    parser.add_argument(
        "--calibrate", action="store_true", help="add sparsity plans, made from the default text"
    )
    parser.add_argument(
        "--rotate",
        choices=ROTATIONS,
        help="fold bases of principal components into the weights, for plan larosa: global one, "
        "layers one a layer with adapters between them",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="FILE",
        help="of what the bases of --rotate are made, as of calibrate; may be given again "
        "(default: the help texts of Python)",
    )
    add_lora_option(parser)
    parser.add_argument("--force", action="store_true", help="replace a packed folder at OUT")
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")


def add_verify(commands: Any, add: Add) -> None:
    """Put `verify` on the command line."""
    parser = add(commands, "verify", "compare a packed folder with its checksums")
    parser.set_defaults(module=MODULE)
    parser.add_argument("folder", metavar="DIR", help="a packed folder")
    add_json_option(parser)


def add_cache(commands: Any, add: Add) -> None:
    """Put `cache list` and `cache clear`, of the pack cache, on the command line."""
    parser = add(commands, "cache", "list or clear the pack cache: packed models that are kept")
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))
    listing = add(actions, "list", "list all that is kept, with sizes")
    listing.set_defaults(run="cache_list", module=MODULE)
    add_json_option(listing)
    clearing = add(actions, "clear", "remove packed models", _CLEAR_NOTES)
    clearing.set_defaults(run="cache_clear", module=MODULE)
    clearing.add_argument("name", nargs="?", metavar="PACK", help="only this one (default: all)")
    clearing.add_argument(
        "--all",
        action="store_true",
        help="also remove sources, the kernel cache and the chat history",
    )


_CLEAR_NOTES = """Removes packed models and their plans; they are packed again when asked for.
Unless --all is given, fetched sources, the kernel cache and the history of chats stay.
"""
_CONVERT_EXAMPLES = """examples:
  sparity-edge convert model.gguf
  sparity-edge convert org/name ./name-int8 --dtype int8 --group 32
  sparity-edge convert model.gguf ./mine --lora ./my-adapter --lora ./another:0.5
  sparity-edge convert org/name ./rotated --layout input --rotate layers --text wiki.txt
"""
