"""The options of `serve`; imports nothing heavy, so that `--help` is quick.

Knows nothing of HTTP: `commands/serve.py` carries the command out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sparity_edge.cli.options.plan import Add
from sparity_edge.cli.options.prefixes import add_prefix_options

Extend = Callable[[argparse.ArgumentParser], None]
HOST, PORT, WAITING, CACHE_MB = "127.0.0.1", 8080, 64, 1024


def add_serve(commands: Any, add: Add, add_model: Extend, add_loading: Extend) -> None:
    """Put `serve` on the command line.

    Args:
        commands, add: as for `add_plan_commands`.
        add_model, add_loading: give a parser what all commands that load a model take.
    """
    parser = add(commands, "serve", "serve a model to many clients by OpenAI's protocol", _EXAMPLES)
    parser.set_defaults(module="serve")
    add_model(parser)
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host",
        default=HOST,
        metavar="ADDRESS",
        help=f"address to listen on; 0.0.0.0 lets other machines in (default: {HOST})",
    )
    group.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"port to listen on (default: {PORT})"
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help="that clients must send (default: none, or SPARITY_EDGE_API_KEY)",
    )
    group.add_argument(
        "--name", metavar="NAME", help="what clients call the model (default: as it is named here)"
    )
    group.add_argument(
        "--queue",
        type=int,
        default=WAITING,
        metavar="N",
        help=f"requests that may wait; more are refused (default: {WAITING})",
    )
    group.add_argument(
        "--cache-mb",
        type=int,
        default=CACHE_MB,
        metavar="N",
        help=f"MB of memory for texts that the next prompt may begin with (default: {CACHE_MB})",
    )
    group.add_argument("--open", action="store_true", help="show the server's page in the browser")
    add_prefix_options(parser)
    add_loading(parser)


_EXAMPLES = """Needs the extra [server]: pip install 'sparity-edge[server]'.

examples:
  sparity-edge serve
  sparity-edge serve model.gguf --port 9000 --sparsity 0.3
  sparity-edge serve --open
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
"""
