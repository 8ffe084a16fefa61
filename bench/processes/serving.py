"""The measured side of a pipe: a JSON object a line in, one out; see `child` for the other side.

Needs nothing but Python itself: it runs in whichever Python has the peer. A peer's script imports
it as a neighbour (`serving`, not `shared.serving`): with this project's folders on its path, peers
would import our modules in place of packages of the same name.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any


def serve(make: Callable[[], Any]) -> None:
    """Carry out commands until the pipe is closed.

    Args:
        make: an object whose methods are the commands. Several may be held, told apart by "name".
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints itself must not stand between the answers
    peers: dict[str, Any] = defaultdict(make)
    for line in sys.stdin:
        command = json.loads(line)
        peer = peers[command.pop("name", "")]
        result = getattr(peer, command.pop("do"))(**command)
        print(json.dumps(result), file=answers, flush=True)
