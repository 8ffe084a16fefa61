"""Runs the application on a socket until it is told to end.

Knows uvicorn; what is served is `app`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import uvicorn

from sparity_edge.errors import OptionError, ResourceError
from sparity_edge.generation.generator import Generator
from sparity_edge.server.app import make_app
from sparity_edge.server.guard import LOOPBACK, App, Guard
from sparity_edge.server.patience import PatientProtocol
from sparity_edge.server.scheduler import Scheduler

HEADER_BYTES = 64 << 10
BACKLOG = 128  # connections that wait to be accepted
KEEP_ALIVE = 30  # seconds that an idle connection is kept
GRACE = 3  # seconds that answers under way are given when the server ends
ABANDON = 10  # seconds more for a step under way and for clients that read slowly


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Args:
        host: a name or an address, as `--host` takes it.
    """
    return host == "localhost" or host == "::1" or host.startswith("127.")


class Server(uvicorn.Server):
    """Ends answers under way with a sentence, where uvicorn alone would cut them off.

    Args:
        config: of uvicorn.
        scheduler: decodes the answers; closed when the server ends.
    """

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = GRACE + ABANDON
        logging.getLogger("uvicorn.error").addFilter(_tells)
        self._scheduler = scheduler

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it: waits for answers under way."""
        ending = asyncio.ensure_future(self._end())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end(self) -> None:
        await asyncio.sleep(GRACE)
        await asyncio.to_thread(self._scheduler.close)


def _tells(record: logging.LogRecord) -> bool:
    """Whether a line is worth showing: an answer that was cut off is no fault of the server."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def config_of(app: App) -> uvicorn.Config:
    """How uvicorn serves an application of ours.

    Args:
        app: behind its guard.
    """
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=PatientProtocol,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens, made before a model is loaded so that a taken port is told at once.

    Args:
        host: a name or an address of this machine.
        port: 0 takes any that is free.

    Raises:
        OptionError: the address is none of this machine's, or the port is out of range or taken.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)  # who asks before the model is loaded waits for it
    except (OSError, OverflowError) as error:
        found.close()
        raise OptionError(
            f"Port {port} of {host} cannot be had ({error}); name another with --port or --host."
        ) from error
    return found


def serve(
    generator: Generator,
    listening: socket.socket,
    *,
    name: str,
    host: str,
    key: str | None = None,
    waiting: int,
    cache_bytes: int,
) -> None:
    """Serve a model until SIGINT or SIGTERM.

    Args:
        generator: the model; nobody else may use it meanwhile.
        listening: as `bound` gives it.
        name: what the model is called.
        host: as the socket was bound to.
        key: that requests must carry; None: none.
        waiting: requests that may wait.
        cache_bytes: of KV caches kept for prompts to come.

    Raises:
        ResourceError: the server cannot listen.
    """
    scheduler = Scheduler(generator.loaded, most_waiting=waiting, cache_bytes=cache_bytes)
    hosts = {*LOOPBACK, host} if is_loopback(host) else ()
    config = config_of(Guard(make_app(scheduler, name), hosts, key))
    try:
        Server(config, scheduler).run(sockets=[listening])
    except OSError as error:
        raise ResourceError(f"The server cannot listen ({error}); name another port.") from error
    finally:
        scheduler.close()
