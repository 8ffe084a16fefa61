"""A trial of a grammar in a process that can be ended: reading some of them takes without end.

What such a grammar costs cannot be told from its size, nor bounded from within the process. Schemas
that are plainly of another kind, nearly all there are, need no trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sparity_edge.errors import OptionError, ResourceError

MOST_SECONDS = 2  # of the processor, which schemas of thousands of lines stay under
MOST_WAIT = 30.0  # seconds by the clock, on a machine that does other work
PLAIN_BYTES = 1 << 13  # what is shorter, and has nothing that multiplies, needs no trial
PLAIN_PATTERNS = 16
# What says nothing of a value, or stands beside alternatives without having to hold with them.
APART = {"title", "description", "default", "examples", "deprecated", "discriminator", "$comment"}
APART |= {"$defs", "definitions", "$schema", "$id", "x-guidance"}
JOINING = {"anyOf", "oneOf", "$ref"}
PATTERNS = {"pattern", "patternProperties", "format", "oneOf"}

SCRIPT = """
import json, sys, threading
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
except (ImportError, ValueError, OSError):
    pass
from llguidance import LLMatcher, LLParserLimits
grammar, limits = json.load(sys.stdin)
threading.stack_size(STACK)
work = lambda: LLMatcher.validate_grammar(grammar, None, limits=LLParserLimits(**limits))
thread = threading.Thread(target=work)
thread.start()
thread.join()
print("done")
"""


def needs_trial(grammar: str) -> bool:
    """Whether reading a schema may take long.

    Args:
        grammar: of it, in llguidance's JSON form.
    """
    if len(grammar) > PLAIN_BYTES:
        return True
    objects = list(_objects(json.loads(grammar)))
    patterns = sum(len(PATTERNS & each.keys()) for each in objects)
    return patterns > PLAIN_PATTERNS or any(map(_multiplies, objects))


def try_out(grammar: str, limits: Mapping[str, Any], stack: int, field: str) -> None:
    """Have another process read a grammar.

    Args:
        grammar: as llguidance takes it.
        limits: of llguidance's.
        stack: bytes for it.
        field: what the user calls the grammar, for errors.

    Raises:
        OptionError: it takes too long.
        ResourceError: there is no such process.
    """
    script = SCRIPT.replace("SECONDS", str(MOST_SECONDS)).replace("STACK", str(stack))
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps([grammar, dict(limits)]).encode(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=MOST_WAIT,
            check=False,
        )
        ended = done.stdout.strip() == b"done"
    except subprocess.TimeoutExpired:
        ended = False
    except OSError as error:
        raise ResourceError(f"No process can be started to read {field} ({error}).") from None
    if not ended:
        raise OptionError(
            f"{field} takes more than {MOST_SECONDS} seconds to read; make it simpler, with fewer "
            "alternatives that have to hold together (allOf, or anyOf beside other keywords)."
        )


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _multiplies(schema: Mapping[str, Any]) -> bool:
    """Whether alternatives have to hold together with something else."""
    return "allOf" in schema or (bool(JOINING & schema.keys()) and len(schema.keys() - APART) > 1)
