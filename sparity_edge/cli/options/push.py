"""The options of `push`; imports nothing heavy: `--help` is quick.

Knows nothing of the Hub: `commands/push.py` carries the command out.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.cli.options.plan import Add


def add_push(commands: Any, add: Add) -> None:
    """Put `push` on the command line; `add` is as for `add_plan_commands`."""
    parser = add(commands, "push", "upload a packed folder to the Hugging Face Hub", _EXAMPLES)
    parser.set_defaults(module="push")
    parser.add_argument("folder", metavar="DIR", help="a packed folder")
    parser.add_argument(
        "repository", metavar="ORG/NAME", help="where to; made where there is none yet"
    )
    parser.add_argument(
        "--license",
        metavar="NAME",
        help="of the model, as the Hub calls it: apache-2.0, mit, other (default: its source's)",
    )
    parser.add_argument(
        "--private", action="store_true", help="have the Hub show it to nobody else"
    )
    parser.add_argument(
        "--revision", metavar="BRANCH", help="made where there is none (default: main)"
    )
    parser.add_argument("--commit-message", metavar="TEXT", help="one line about this upload")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the files and the model card; send nothing"
    )


_EXAMPLES = """Sends the files of the packed model and nothing else of the folder, with a model card
made of them. Who you are is what `hf auth login` or HF_TOKEN says.

examples:
  sparity-edge push ./my-model me/my-model --dry-run
  sparity-edge push ./my-model me/my-model --private
"""
