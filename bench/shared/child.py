"""A measured program in a process of its own, told what to do through a pipe, a JSON object a line.

The child answers every line with one of its own. What it measures, and with which Python and which
folder of modules it runs, is up to the script that starts it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROCESSES = Path(__file__).resolve().parents[1] / "processes"  # what children run


class Child:
    """A script that reads commands.

    Args:
        command: what starts it.
        remedy: the end of the sentence that reports its death.
        options: of `subprocess.Popen`, such as env and cwd.
    """

    def __init__(self, command: Sequence[str], remedy: str, **options: Any) -> None:
        self._name, self._remedy = Path(command[1]).stem, remedy
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )

    def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Let it do something and wait for the answer.

        Raises:
            SystemExit: it died.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{self._name} gave up at {do!r}; {self._remedy}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


class LlamaCpp(Child):
    """llama.cpp, by way of llama_peer.py.

    Args:
        python: the Python that has llama-cpp-python.
    """

    def __init__(self, python: str) -> None:
        remedy = "peers.py --help says how to install llama.cpp."
        super().__init__([python, str(PROCESSES / "llama_peer.py")], remedy)


class IkLlamaCpp(Child):
    """ik_llama.cpp, by way of ik_peer.py.

    Args:
        folder: of its build.
    """

    def __init__(self, folder: Path) -> None:
        remedy = "peers.py --help says how to build ik_llama.cpp."
        super().__init__([sys.executable, str(PROCESSES / "ik_peer.py"), str(folder)], remedy)


class Torch(Child):
    """PyTorch, by way of torch_peer.py.

    Args:
        python: the Python that has torch, transformers, accelerate and gguf.
    """

    def __init__(self, python: str) -> None:
        remedy = "plans.py --help says what its Python needs."
        super().__init__([python, str(PROCESSES / "torch_peer.py")], remedy)
