"""What the faces write: the model's text, notes beside it, and bars for long work.

Text of a model or of a stranger's file never reaches the terminal with control characters in it.
Rich is imported when the first note or bar is drawn.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from sparity_edge.terminal.keyboard import unechoed_keys
from sparity_edge.terminal.word_wrap import WordWrap

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Control characters could move the cursor, set the title or type for the user: all of C0 but
# newline and tab, DEL, and C1 (where terminals take U+009B for ESC [).
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")})
BAR_DELAY = 0.5  # seconds; shorter work shows no bar
DUMB_LINES = 25
PIPE_DELAY = 2.0  # seconds; longer work is told of even where nobody may be looking


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


def is_dumb() -> bool:
    """Whether the terminal can only write one line after the other."""
    return os.environ.get("TERM", "") in ("dumb", "unknown")


def columns(stream: TextIO) -> int:
    """The width of the terminal that a stream leads to."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if "COLUMNS" not in os.environ and (width := os.get_terminal_size(stream.fileno()).columns):
            return width
    return shutil.get_terminal_size().columns


class Screen:
    """Where a reply and the notes on it are written.

    Args:
        output: receives the model's text, wrapped at words where it is a terminal.
        notes: receives everything else, dimmed where it is a terminal; None: nobody.
    """

    def __init__(self, output: TextIO, notes: TextIO | None) -> None:
        self._output = output
        self._notes = notes
        self._console: Console | None = None
        self._column_zero = True
        self._wrap = WordWrap() if output.isatty() else None

    def text(self, piece: str) -> None:
        """A piece of the model's text, as it comes; at a terminal once its words are complete."""
        piece = neutral(piece)
        self._write(self._wrap.push(piece, columns(self._output)) if self._wrap else piece)

    def end_line(self) -> None:
        """A newline, unless the text just ended in one."""
        if self._wrap:
            self._write(self._wrap.flush(columns(self._output)))
            self._wrap = WordWrap()
        if not self._column_zero:
            self._write("\n")

    def _write(self, piece: str) -> None:
        if piece:
            self._output.write(piece)
            self._output.flush()
            self._column_zero = piece.endswith("\n")

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

            self._console = Console(file=self._notes or sys.stderr)
        # Rich takes a dumb terminal, and what is no terminal, for one of 80 columns.
        terminal = self._notes is not None and self._notes.isatty()
        self._console.width = columns(self._notes) if self._notes and terminal else 10_000
        if is_dumb():
            self._console.height = DUMB_LINES  # else Rich ignores the width
        return self._console


class Bars:
    """A `Progress` that draws a bar for each label, once the work takes longer than `delay`.

    Use as a context manager around the work; the bars vanish at its end. Where notes are not a
    terminal, each label becomes one line instead.
    `still` bars are drawn by their caller only, between measurements: else a thread of Rich draws
    ten times a second, which costs the work beside it a millisecond each time.

    Args:
        screen: where bars or lines are written.
        terminal: whether bars can be drawn there.
        delay: seconds of work that are not told of.
        still: see above.
    """

    def __init__(
        self, screen: Screen, *, terminal: bool, delay: float = BAR_DELAY, still: bool = False
    ) -> None:
        self._screen = screen
        self._terminal = terminal
        self._delay = delay
        self._still = still
        self._keys = contextlib.ExitStack()
        self._open = True
        self._lock = threading.Lock()
        self._pending: list[str] = []  # notes on work that may turn out to be short
        self._state: dict[str, tuple[int, int]] = {}  # label -> (done, total)
        self._drawn: dict[str, TaskID] = {}
        self._bars: RichProgress | None = None
        self._timer: threading.Timer | None = None
        self._begun = 0.0

    def __call__(self, label: str, done: int, total: int) -> None:
        """Take note of how far the work named `label` is."""
        with self._lock:
            if self._open:
                self._state[one_line(label)] = (done, total)
                self._take_time()

    def notify(self, sentence: str) -> None:
        """A note on work that begins; where short work is not told of, once it is not short."""
        with self._lock:
            if self._delay > BAR_DELAY:
                self._pending.append(sentence)
                self._take_time()
            else:
                self._screen.note(sentence)

    def _take_time(self) -> None:
        """Draw, if the work takes longer than `delay` by now."""
        if not self._begun:
            self._begun = time.monotonic()
            if not self._still:  # work that reports nothing for a while must show up too
                self._timer = threading.Timer(self._delay, self._draw_late)
                self._timer.daemon = True
                self._timer.start()
        if time.monotonic() - self._begun >= self._delay:
            self._draw()

    def __enter__(self) -> Bars:
        self._keys.enter_context(unechoed_keys())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._keys:
            if self._timer is not None:
                self._timer.cancel()
            with self._lock:
                self._open = False
                if self._bars is not None:
                    self._bars.stop()

    def _draw_late(self) -> None:
        with self._lock:
            if self._open:
                self._draw()

    def _draw(self) -> None:
        while self._pending:
            self._screen.note(self._pending.pop(0))
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
