"""The options of `doctor`; imports nothing heavy, so that `--help` is quick.

Knows nothing of what is examined: `commands/doctor.py` carries the command out.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.choices import DEFAULT_MODEL
from sparity_edge.cli.options.plan import Add
from sparity_edge.terminal.json_output import add_json_option


def add_doctor(commands: Any, add: Add) -> None:
    """Put `doctor` on the command line; `add` is as for `add_plan_commands`."""
    about = "examine this machine: what it gives, and what would make it faster"
    parser = add(commands, "doctor", about, _EXAMPLES)
    parser.set_defaults(module="doctor")
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"whose speed to estimate, if it is packed already (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads to measure with (default: all physical cores)",
    )
    add_json_option(parser)


_EXAMPLES = """Reads memory for two seconds; fetches nothing and loads no model. The exit code is 1
only where something keeps models from running.

examples:
  sparity-edge doctor
  sparity-edge doctor ./my-model --threads 4
  sparity-edge doctor --json > machine.json
"""
