"""What `serve` does: listens first, loads the model, and serves it until it is told to end.

Knows nothing of requests.
"""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from argparse import Namespace
from pathlib import Path

from sparity_edge.cli.commands.loading import loaded
from sparity_edge.errors import OptionError
from sparity_edge.terminal.screen import Screen

KEY = "SPARITY_EDGE_API_KEY"
HERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # how this machine reaches any of its addresses


def serve(arguments: Namespace) -> None:
    """`sparity-edge serve`: OpenAI's protocol over one model.

    Raises:
        OptionError: an option is out of range, or the extra `[server]` is not installed.
    """
    try:
        from sparity_edge.server.run import bound, is_loopback, serve
    except ImportError as error:
        raise OptionError(
            f"The server needs packages that are not here ({error.name}); "
            "pip install 'sparity-edge[server]' brings them."
        ) from None
    if arguments.queue < 1:
        raise OptionError(f"--queue={arguments.queue} is too small; use 1 or more.")
    if arguments.cache_mb < 0:
        raise OptionError(f"--cache-mb={arguments.cache_mb} is too small; use 0 or more.")
    key = arguments.api_key
    if key is None:
        key = os.environ.get(KEY) or None
    # An empty one, as an unset variable of a shell gives, would let everybody in.
    if key is not None and (key.strip() != key or not key or not key.isprintable()):
        raise OptionError(
            f"The key of --api-key or {KEY} is empty, begins or ends with a space, or has "
            "characters that no header carries; choose another one."
        )
    screen = Screen(sys.stderr, sys.stderr)
    with (
        bound(arguments.host, arguments.port) as listening,
        loaded(arguments, screen) as (generator, _),
    ):
        generator.loaded.model.machine.compile_batches(generator.loaded.progress)
        if not is_loopback(arguments.host) and key is None:
            screen.note("Anybody who reaches this machine can use the model; --api-key asks first.")
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        page = f"http://{HERE[host]}:{port}/" if host in HERE else f"{address}/"
        screen.note(f"To chat in the browser: {page}")
        screen.note(f"{arguments.model} at {address}/v1; Ctrl-C ends it.")
        if arguments.open:
            # A browser in the terminal returns when it is closed.
            threading.Thread(target=webbrowser.open, args=[page], daemon=True).start()
        serve(
            generator,
            listening,
            name=arguments.name or Path(arguments.model).name or arguments.model,
            host=arguments.host,
            key=key,
            waiting=arguments.queue,
            cache_bytes=arguments.cache_mb << 20,
        )
