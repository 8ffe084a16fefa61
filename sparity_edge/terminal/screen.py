"""What the faces write: the model's text, notes beside it, and bars for long work.

Text of a model or of a stranger's file never reaches the terminal with control characters in it.
Rich is imported when the first note or bar is drawn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Control characters could move the cursor, set the title or type for the user: all of C0 but
# newline and tab, DEL, and C1 (where terminals take U+009B for ESC [).
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
BAR_DELAY = 0.5  # seconds; shorter work shows no bar


def neutral(text: str) -> str:
    """The text without terminal control characters."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """The text on one line, without control characters."""
    return neutral(" ".join(text.split()))


def prepare_streams() -> None:
    """Make stdout and stderr write every character: UTF-8 on Windows, "?" where one cannot be.

    A stream that was closed before the start (`<&-`) is replaced by an empty one.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced or closed
            encoding = "utf-8" if os.name == "nt" else None
            stream.reconfigure(encoding=encoding, errors="replace")  # type: ignore[union-attr]


def silence_stdout() -> None:
    """Point stdout at nothing, so that closing it at exit cannot fail once its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def read_stdin(most: int) -> str:
    """Everything on stdin as text, at most `most` bytes and one more, for the caller to notice."""
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        return str(sys.stdin.read(most + 1))
    return bytes(stream.read(most + 1)).decode("utf-8-sig", "replace")


class Screen:
    """Where a reply and the notes on it are written.

    Args:
        output: receives the model's text.
        notes: receives everything else, dimmed where it is a terminal; None: nobody.
    """

    def __init__(self, output: TextIO, notes: TextIO | None) -> None:
        self._output = output
        self._notes = notes
        self._console: Console | None = None
        self._column_zero = True

    def text(self, piece: str) -> None:
        """A piece of the model's text, as it comes."""
        piece = neutral(piece)
        if piece:
            self._output.write(piece)
            self._output.flush()
            self._column_zero = piece.endswith("\n")

    def end_line(self) -> None:
        """A newline, unless the text just ended in one."""
        if not self._column_zero:
            self.text("\n")

    def note(self, line: str) -> None:
        """A line that is not the model's, wrapped at the width of the terminal."""
        if self._notes is not None:
            from rich.text import Text

            self.end_line()
            self.console.print(Text(neutral(line), style="dim"), highlight=False)

    @property
    def console(self) -> Console:
        """The console that notes and bars share, so that they do not write over each other."""
        if self._console is None:
            from rich.console import Console

            # Away from a terminal Rich would wrap at 80 columns.
            width = None if self._notes is not None and self._notes.isatty() else 10_000
            self._console = Console(file=self._notes or sys.stderr, width=width)
        return self._console


class Bars:
    """A `Progress` that draws a bar for each label, once the work takes over half a second.

    Use as a context manager around the work; the bars vanish at its end. Where notes are not a
    terminal, each label becomes one line instead. Where nobody reads notes, nothing is drawn.
    `still` bars are drawn by their caller only, between measurements: else a thread of Rich draws
    ten times a second, which costs the work beside it a millisecond each time.
    """

    def __init__(
        self, screen: Screen, *, enabled: bool, terminal: bool, still: bool = False
    ) -> None:
        self._screen = screen
        self._enabled = enabled
        self._terminal = terminal
        self._still = still
        self._lock = threading.Lock()
        self._state: dict[str, tuple[int, int]] = {}  # label -> (done, total)
        self._drawn: dict[str, TaskID] = {}
        self._bars: RichProgress | None = None
        self._timer: threading.Timer | None = None
        self._begun = 0.0

    def __call__(self, label: str, done: int, total: int) -> None:
        """Take note of how far the work named `label` is."""
        if not self._enabled:
            return
        with self._lock:
            self._state[one_line(label)] = (done, total)
            if self._still:
                self._draw()
            elif self._timer is None:
                # Work that reports nothing for a while must show up too.
                self._begun = time.monotonic()
                self._timer = threading.Timer(BAR_DELAY, self._draw_late)
                self._timer.daemon = True
                self._timer.start()
            elif time.monotonic() - self._begun > BAR_DELAY:
                self._draw()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._enabled = False
            if self._bars is not None:
                self._bars.stop()

    def _draw_late(self) -> None:
        with self._lock:
            if self._enabled:
                self._draw()

    def _draw(self) -> None:
        for label, (done, total) in self._state.items():
            if label not in self._drawn:
                if done >= total:
                    continue  # over before anybody wondered
                self._drawn[label] = self._add(label, total)
            if self._bars is not None:
                self._bars.update(
                    self._drawn[label], completed=done, total=total, refresh=self._still
                )

    def _add(self, label: str, total: int) -> TaskID:
        from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        if not self._terminal:
            self._screen.note(f"{label} ...")
            return TaskID(0)
        if self._bars is None:
            label_column = TextColumn("{task.description}", markup=False)
            self._bars = Progress(
                label_column,
                BarColumn(),
                TaskProgressColumn(),
                Remaining(),
                console=self._screen.console,
                transient=True,
                auto_refresh=not self._still,
            )
            self._bars.start()
        return self._bars.add_task(label, total=total)
