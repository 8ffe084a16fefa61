"""Kernels are kept on disk where that is possible, and run where it is not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rooms import all_arrows

import sparity_edge
from sparity_edge.kernels import compilers
from sparity_edge.kernels.code_cache import CodeCache
from sparity_edge.kernels.decode import elementwise
from sparity_edge.kernels.kernel import OUTSIDE, Kernel, device, digest_of
from sparity_edge.kernels.program.team import Team
from sparity_edge.kernels.simd.memory import load_i64, store_f32


def write_one(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """1.0 to the place that the first argument names."""
    store_f32(load_i64(arguments), 1.0)


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CodeCache, "_load_overload", lambda *_: None)
    monkeypatch.setattr(CodeCache, "save_overload", full)
    out = np.zeros(1, dtype=np.float32)
    arguments = np.array([out.ctypes.data], dtype=np.int64)
    kernel = Kernel("place")(write_one)
    assert kernel.address
    kernel._compiled.ctypes(int(arguments.ctypes.data), 0, 0)
    assert out[0] == 1
    Team.compile()


FETCH = """
import sys
from sparity_edge.kernels.decode.elementwise import silu
from sparity_edge.kernels.program.team import Team
Team.compile()
print(silu.address != 0, silu.was_cached, "numba.np.npyimpl" in sys.modules)
"""


def test_what_an_earlier_run_compiled_starts_no_compiler(tmp_path: Path) -> None:
    printed = [
        subprocess.run(
            [sys.executable, "-c", FETCH],
            # Kernels as users run them.
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "SPARITY_EDGE_CHECKS": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert printed == [["True", "False", "True"], ["True", "True", "False"]]


PACKAGE = Path(sparity_edge.__file__).parent
# What kernels import for other reasons than code and constants of machine code.
NO_CONSTANTS = {"errors", "progress", "system.folders", "system.memory", "system.threads"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the files that the digest covers."""
    copy = tmp_path / "sparity_edge"
    shutil.copytree(PACKAGE / "kernels", copy / "kernels", ignore=lambda *_: {"__pycache__"})
    for name in OUTSIDE:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(PACKAGE / name, copy / name)
    return copy


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def renamed(path: Path) -> None:
    path.rename(path.with_name("renamed.py"))


def beside(path: Path) -> None:
    (path.parent / "zz.py").touch()


@pytest.mark.parametrize("change", [longer, renamed, beside])
def test_any_change_of_any_kernel_file_is_another_cache(
    package: Path, change: Callable[[Path], None]
) -> None:
    before = digest_of(package)
    assert before == digest_of(PACKAGE)
    for path in sorted((package / "kernels").rglob("*.py")):
        kept = path.read_bytes()
        change(path)
        assert digest_of(package) != before, path
        for made in ("renamed.py", "zz.py"):
            path.with_name(made).unlink(missing_ok=True)
        path.write_bytes(kept)
        assert digest_of(package) == before


@pytest.mark.parametrize("name", OUTSIDE)
def test_constants_from_outside_count(package: Path, name: str) -> None:
    before = digest_of(package)
    longer(package / name)
    assert digest_of(package) != before


def test_everything_that_kernels_import_counts() -> None:
    inside = "sparity_edge.kernels"
    outside = {
        there.removeprefix("sparity_edge.")
        for here, there in all_arrows()
        if here.startswith(inside) and not there.startswith(inside)
    }
    known = {name.removesuffix(".py").replace("/", ".") for name in OUTSIDE}
    assert outside - NO_CONSTANTS == known


def test_python_cannot_call_what_is_linked_into_kernels() -> None:
    with pytest.raises(TypeError, match="load_i64_twice is linked into kernels only"):
        load_i64_twice(0)


@device
def load_i64_twice(place: int) -> int:
    return load_i64(place) + load_i64(place)


def uncompiled() -> list[Kernel]:
    """Kernels as they are before their first use."""
    names = ("rmsnorm", "silu", "silu_mul", "multiply", "append")
    declared = [getattr(elementwise, name) for name in names]
    return [Kernel(each.words)(each._function) for each in declared]


def written(cache: Path) -> int:
    """How many kernels a cache holds."""
    return len({path.stem for path in cache.rglob("*.nbc")})


def test_kernels_are_compiled_in_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilers, "default_threads", lambda: 2)
    kernels = uncompiled()
    told: list[int] = []

    def progress(_what: str, done: int, _of: int) -> None:
        told.append(done)
        deadline = time.monotonic() + 60  # the other process takes a moment to start
        while len(told) == 2 and not written(tmp_path) > 2 and time.monotonic() < deadline:
            time.sleep(0.05)

    compilers.compile_kernels(kernels, progress)
    assert told == sorted(told)
    assert told[-1] == len(kernels)
    fetched = [each.name for each in kernels if each.was_cached]
    assert 0 < len(fetched) < len(kernels)  # the other process compiled some
    again = uncompiled()
    compilers.compile_kernels(again, lambda *_: None)
    assert all(each.was_cached for each in again)


def test_without_other_processes_all_is_compiled_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    monkeypatch.setattr(compilers, "default_threads", lambda: 2)
    kernels = uncompiled()
    compilers.compile_kernels(kernels, lambda *_: None)
    assert not any(each.was_cached for each in kernels)


def test_kernels_are_compiled_behind_other_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilers, "_ASKED", set())
    kernels = uncompiled()
    assert not any(each.fetched() for each in kernels)
    compilers.compile_behind(kernels)
    (process,) = compilers._BEHIND
    compilers.compile_behind(kernels)  # nothing to add
    assert [process] == compilers._BEHIND
    assert process.wait(60) == 0
    assert all(each.fetched() and each.was_cached for each in kernels)


def test_what_compiles_behind_ends_with_its_process(tmp_path: Path) -> None:
    started = time.monotonic()
    code = (
        "from sparity_edge.kernels import compilers\n"
        "from sparity_edge.kernels.prefill.gemm import gemm_words\n"
        "compilers.compile_behind([gemm_words])\n"
        "print(compilers._BEHIND[0].pid)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    assert time.monotonic() - started < 30
    assert not written(tmp_path)


# Closures too long to be put into the kernels that call them, told apart by a constant alone.
KERNELS = """
import math
import numpy as np
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.memory import load_i64, store_f32

def scaling(factor):
    @device
    def scaled(x):
        total = 0.0
        for i in range(1, 9):
            total += math.sin(x * i) * factor + math.exp(-x * i) + math.log1p(x * i) * factor
            total += math.tan(x / i) * math.atan(x * i) - math.cos(x * i) * math.sqrt(x / i)
        return total
    return scaled

one, ten = scaling(1.0), scaling(10.0)

def by_one(arguments, chunk, scratch):
    store_f32(load_i64(arguments), one(0.5) + one(0.25) + one(0.125))

def by_ten(arguments, chunk, scratch):
    store_f32(load_i64(arguments), ten(0.5) + ten(0.25) + ten(0.125))

def run(function):
    kernel = Kernel("place")(function)
    out = np.zeros(1, dtype=np.float32)
    arguments = np.array([out.ctypes.data], dtype=np.int64)
    assert kernel.address
    kernel._compiled.ctypes(int(arguments.ctypes.data), 0, 0)
    return float(out[0])
"""


def test_closures_of_one_name_keep_their_own_code(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(KERNELS, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": places}

    def printed(what: str) -> str:
        script = f"import pair; print({what})"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    first, second = printed("pair.run(pair.by_one)"), printed("pair.run(pair.by_ten)")
    assert first != second
    assert printed("pair.run(pair.by_one), pair.run(pair.by_ten)") == f"{first} {second}"
    assert printed("pair.run(pair.by_ten), pair.run(pair.by_one)") == f"{second} {first}"
