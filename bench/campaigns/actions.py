"""What writes files: convert, adding a plan, saving a cache and a chat; each to be interrupted.

`Actions` holds a model on disk with a plan, a saved cache and a chat. Every action replaces one of
them by a new version, and `fault` says whether what is there afterwards is the old or the new one,
whole. Actions run in forked processes, since they are killed.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from campaigns.mutated import judge
from campaigns.targets import SHORT, Generator, family, pack_folder, tiny

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge.chat import conversation
from sparity_edge.errors import SparityError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.manifest import LOCK_FILE
from sparity_edge.plans.plan_file import add_plan, read_plan

DTYPES = ("int8", "bf16")
NAMES = ("convert", "plan add", "save")
FORK = multiprocessing.get_context("fork") if os.name != "nt" else None


class Actions:
    """A folder with one of everything that is written, in version 0.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self._source = tiny.build(folder / "source", "llama_gqa")
        self._other = pack_folder(self._source, folder / "other", "int8", "mixed")
        self._plan = dataclasses.replace(family(open_packed(self._other), "mixed"), name="mixed")
        self._generator = Generator.load(self._other, threads=1)
        self._generator.generate("The river", SHORT)
        self.version = dict.fromkeys(NAMES, 0)
        pack_folder(self._source, self.folder / "planned", "int8", "mixed")
        for name in NAMES:
            self.act(name, 0)

    def act(self, name: str, version: int) -> None:
        """Write a version of something in the place of the former one."""
        if name == "convert":
            options = PackOptions(DTYPES[version % 2])
            with open_any(str(self._source)) as source:
                convert(source, self.folder / "model", options, force=True)
        elif name == "plan add":
            plan = dataclasses.replace(self._plan, method=f"version {version}")
            add_plan(open_folder(self.folder / "planned"), plan)
        else:
            said = conversation.Conversation(f"version {version}")
            conversation.save(self.folder / "chat.json", said, SamplingParams(), "tiny")
            self._generator.save_cache(self.folder / "cache.safetensors")

    def found(self, name: str) -> int:
        """The version that is there, modulo 2 for a model; raises where something is half."""
        if name == "convert":
            verify_packed(self.folder / "model")
            options = open_folder(self.folder / "model").manifest["options"]
            return DTYPES.index(options["dtype"])
        if name == "plan add":
            plan = read_plan(open_folder(self.folder / "planned"), "mixed")
            return int(plan.method.removeprefix("version "))
        self._generator.load_cache(self.folder / "cache.safetensors")
        said, _, _ = conversation.load(self.folder / "chat.json")
        return int((said.system or "").removeprefix("version "))

    def fault(self, name: str, old: int, new: int) -> str:
        """What is wrong with what is there: it is neither the old nor the new version, whole."""
        allowed = {old % 2, new % 2} if name == "convert" else {old, new}
        try:
            found = self.found(name)
        except (SparityError, OSError, ValueError) as error:
            return f"{name}: half of it is there: {error}"
        return "" if found in allowed else f"{name}: version {found} is there"

    def leftovers(self) -> list[str]:
        """Hidden files and folders beside or in what was written."""
        hidden = (path for path in self.folder.rglob(".*") if path.name != LOCK_FILE)
        return sorted(path.name for path in hidden)


def start(action: Callable[[], object]) -> tuple[Any, Connection]:
    """Begin an action in a forked process, which answers as `judge` does."""
    assert FORK is not None, "this needs a system with fork"
    mine, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(judge(action)), daemon=True)
    process.start()
    theirs.close()
    return process, mine


def finish(action: Callable[[], object], seconds: float = 60.0) -> tuple[str, str]:
    """What becomes of an action that is left alone."""
    process, answer = start(action)
    try:
        outcome: tuple[str, str] = answer.recv() if answer.poll(seconds) else ("fault", "a hang")
    except (EOFError, OSError):
        process.join()
        outcome = ("fault", f"crash, exit code {process.exitcode}")
    process.kill()
    process.join()
    return outcome


def duration(action: Callable[[], object]) -> float:
    """Seconds that an action takes in a process of its own."""
    began = time.perf_counter()
    finish(action)
    return time.perf_counter() - began
