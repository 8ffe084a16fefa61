"""The options of `calibrate` and `plan`; imports nothing heavy, so that `--help` is quick.

Knows nothing of calibration: `commands/plan.py` carries the commands out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sparity_edge.choices import DTYPES, SPARSE_LAYOUTS
from sparity_edge.cli.options.lora import add_lora_option
from sparity_edge.terminal.json_output import add_json_option

Add = Callable[..., argparse.ArgumentParser]
MODULE = "plan"


def add_plan_commands(commands: Any, add: Add) -> None:
    """Put `calibrate` and `plan` on the command line.

    Args:
        commands: the subparsers of the command.
        add: called as add(commands, name, about, examples), gives the parser of a command.
    """
    _add_calibrate(commands, add)
    about = "list, show, add or remove the sparsity plans of a model"
    parser = add(commands, "plan", about, _PLAN_EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))
    listing = _action(actions, add, "list", "list the plans of a model")
    add_json_option(listing)
    showing = _action(actions, add, "show", "show a plan: what it skips at every level")
    showing.add_argument(
        "name", nargs="?", metavar="PLAN", help="the plan (default: the one followed by default)"
    )
    add_json_option(showing)
    adding = _action(actions, add, "add", "copy a plan into the packs of a model that can carry it")
    adding.add_argument("file", metavar="FILE", help="plan-NAME.safetensors in a packed folder")
    removing = _action(actions, add, "remove", "remove a plan")
    removing.add_argument("name", metavar="PLAN", help="the plan")


def _add_calibrate(commands: Any, add: Add) -> None:
    about = "find out from text what a model can skip"
    parser = add(commands, "calibrate", about, _CALIBRATE_EXAMPLES)
    parser.set_defaults(module=MODULE)
    parser.add_argument("model", metavar="MODEL", help="a packed folder, or what can be packed")
    parser.add_argument(
        "--text",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help='text in UTF-8, or .jsonl with {"text": ...} (default: the help texts of Python)',
    )
    parser.add_argument(
        "--tokens", type=int, default=65536, metavar="N", help="how many to read (default: 65536)"
    )
    parser.add_argument(
        "--methods",
        type=_names,
        default=["all"],
        metavar="NAME,...",
        help="chess, chess-ffn, cats, teal, centred ..., ablation, or all (default)",
    )
    parser.add_argument(
        "--layout",
        choices=SPARSE_LAYOUTS,
        help="put all plans into the pack of this layout (default: each where it belongs)",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="number format of what has to be packed")
    add_lora_option(parser)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads (default: all physical cores)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that a search (evopress) is divided among (default: 1)",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="Dask scheduler whose workers search instead, as tcp://host:port",
    )
    parser.add_argument("--offline", action="store_true", help="use only what is on this machine")


def _action(actions: Any, add: Add, name: str, about: str) -> argparse.ArgumentParser:
    parser = add(actions, name, about)
    parser.set_defaults(run=f"plan_{name}", module=MODULE)
    parser.add_argument("model", metavar="MODEL", help="a packed folder, or a model that is cached")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no name is given")
    return names


_CALIBRATE_EXAMPLES = """Plans are stored in the packed model; --plan chooses one of them and
--sparsity says how much it skips.

examples:
  sparity-edge calibrate ./my-model
  sparity-edge calibrate org/name --text notes.txt letters.txt --tokens 32768
  sparity-edge calibrate ./my-model --methods chess,centred
"""
_PLAN_EXAMPLES = """examples:
  sparity-edge plan list ./my-model
  sparity-edge plan show ./my-model chess
  sparity-edge plan add ./other ./my-model/plan-chess.safetensors
  sparity-edge plan add smollm2-135m ./my-model/plan-chess.safetensors
  sparity-edge plan remove ./my-model chess
"""
