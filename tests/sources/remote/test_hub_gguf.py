"""GGUF files on the Hub: which one `org/name:TAG` means, and that all of it is fetched."""

from __future__ import annotations

import contextlib
from pathlib import Path

import gguf_files
import pytest
from fake_downloads import COMMIT, MODEL, FakeHub
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf_parts import write_parts

from converters.sources import open_source
from converters.sources.remote.gguf_choice import choose, gguf_models
from sparity_edge.errors import SourceError
from sparity_edge.progress import CallContext

# As repositories of several authors name their files.
MANY = {
    "README.md": 1,
    "mmproj-F16.gguf": 5,
    "tiny-imatrix.gguf": 5,
    "tiny-Q2_K.gguf": 300_000_000,
    "tiny-Q4_K_M.gguf": 800_000_000,
    "tiny-UD-Q4_K_XL.gguf": 810_000_000,
    "tiny-Q4_0_4_4.gguf": 700_000_000,
    "tiny.i1-IQ4_XS.gguf": 600_000_000,
    "tiny-Q8_0/tiny-Q8_0-00001-of-00002.gguf": 1_000_000_000,
    "tiny-Q8_0/tiny-Q8_0-00002-of-00002.gguf": 500_000_000,
    "tiny-bf16-00001-of-00002.gguf": 1_000_000_000,
}
SIZES = {"a/b-1B-Q4_0.gguf": 10**8, "a/b-3B-Q4_0.gguf": 3 * 10**8, "odd name.gguf": 10**6}


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (None, "tiny-Q4_K_M.gguf"),
        ("latest", "tiny-Q4_K_M.gguf"),
        ("q4_k_m", "tiny-Q4_K_M.gguf"),
        ("Q4_K_XL", "tiny-UD-Q4_K_XL.gguf"),
        ("ud-q4_k_xl", "tiny-UD-Q4_K_XL.gguf"),
        ("IQ4_XS", "tiny.i1-IQ4_XS.gguf"),
        ("Q8_0", "tiny-Q8_0/tiny-Q8_0.gguf"),
        ("tiny-q2_k.gguf", "tiny-Q2_K.gguf"),
        ("tiny-Q8_0-00002-of-00002.gguf", "tiny-Q8_0/tiny-Q8_0.gguf"),
    ],
)
def test_what_a_tag_means(tag: str | None, name: str) -> None:
    assert choose(gguf_models(MANY), tag, f"{MODEL}:{tag}").name == name


def test_defaults_are_those_of_llama_cpp() -> None:
    rest = {name: size for name, size in MANY.items() if "Q4_K_M" not in name}
    assert choose(gguf_models(rest), None, MODEL).files == tuple(
        sorted(each for each in MANY if "Q8_0" in each)
    )
    assert choose(gguf_models({"odd.gguf": 1}), None, MODEL).name == "odd.gguf"


@pytest.mark.parametrize(
    ("sizes", "tag", "sentence"),
    [
        (
            MANY,
            "Q4_0",
            rf"is called so; there are Q2_K \(0\.3 GB\), .*Q8_0 \(1\.5 .* {MODEL}:Q2_K",
        ),
        (MANY, "bf16", r"tiny-bf16-00002-of-00002\.gguf of this split model is missing"),
        (SIZES, "Q4_0", rf"several .*: a/b-1B-Q4_0\.gguf \(0\.1 GB\), a/b-3B.* {MODEL}:a/b-1B-Q4_"),
        (SIZES, None, r"none goes before the others; there are .*odd name\.gguf \(1\.0 MB\)"),
        (
            dict.fromkeys(("x.bin", "../x.gguf", "/y.gguf", "a//b.gguf", "*.gguf"), 1),
            "x",
            "no GGUF",
        ),
    ],
)
def test_what_no_tag_means(sizes: dict[str, int], tag: str | None, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        choose(gguf_models(sizes), tag, f"{MODEL}:{tag}")


ENDS = ("", "-00000-of-00002", "-00001-of-00002", "-00002-of-00002", "-00001-of-90009")
NAMES = st.builds("{}{}.gguf".format, st.text("aQ4_./[*-", max_size=9), st.sampled_from(ENDS))


@settings(max_examples=40)
@given(st.dictionaries(NAMES, st.integers(0, 1 << 40), max_size=5), st.text(min_size=1))
def test_names_of_strangers(sizes: dict[str, int], tag: str) -> None:
    models = gguf_models(sizes)
    files = [file for each in models for file in each.files]
    assert len(files) == len(set(files))
    assert all(file in sizes and ".." not in Path(file).parts for file in files)
    with contextlib.suppress(SourceError):
        assert choose(models, tag, MODEL) in models


@pytest.fixture
def repository(fake: FakeHub, tmp_path: Path) -> FakeHub:
    """Whole and split GGUF files beside a checkpoint in safetensors."""
    write_parts(tmp_path / "gguf").clear()
    fake.folder = tmp_path / "gguf"
    for path in fake.folder.iterdir():
        path.rename(path.with_name(path.name.replace("tiny-", "tiny-Q8_0-")))
    (fake.folder / "sub [1]").mkdir()
    gguf_files.write(fake.folder / "sub [1]" / "tiny-Q4_K_M.gguf")
    return fake


def test_a_file_is_fetched_by_its_tag(repository: FakeHub) -> None:
    notes: list[str] = []
    with open_source(f"{MODEL}:q4_k_m", CallContext(notify=notes.append)) as source:
        assert source.files[0].name == "tiny-Q4_K_M.gguf"
        assert source.label == f"{MODEL}:q4_k_m"
    (snapshot,) = repository.cache.glob("*/snapshots/*")
    assert [each.name for each in snapshot.rglob("*.gguf")] == ["tiny-Q4_K_M.gguf"]
    assert notes == [f"{MODEL}:q4_k_m: sub [1]/tiny-Q4_K_M.gguf, {source_size(snapshot)}."]


def source_size(snapshot: Path) -> str:
    (size,) = (each.stat().st_size for each in snapshot.rglob("*Q4_K_M.gguf"))
    return f"{size / 1e6:.1f} MB"


def test_what_cannot_run_is_not_fetched(repository: FakeHub) -> None:
    repository.facts = {"architecture": "mamba"}
    with pytest.raises(SourceError, match=r"general\.architecture='mamba' is not supported"):
        open_source(f"{MODEL}:Q8_0")
    assert len(repository.requests) == 1


def test_all_parts_are_fetched_and_found_offline(repository: FakeHub) -> None:
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(f"{MODEL}:Q8_0", CallContext(offline=True))
    open_source(f"{MODEL}@v1:Q8_0").close()
    repository.requests.clear()
    for name in (f"{MODEL}@v1:Q8_0", f"{MODEL}@v1", f"{MODEL}@{COMMIT}:tiny-Q8_0"):
        with open_source(name, CallContext(offline=True)) as source:
            assert len(source.files) == 3
    with pytest.raises(SourceError, match=r"none is called so; there are Q8_0 \(2\.\d MB\)"):
        open_source(f"{MODEL}@v1:Q4_K_M", CallContext(offline=True))
    next(repository.cache.rglob("*-00002-of-*")).unlink()
    with pytest.raises(SourceError, match="not on this machine, and --offline"):
        open_source(f"{MODEL}@v1:Q8_0", CallContext(offline=True))
    assert not repository.requests


def test_without_a_tag_the_choice_is_told(repository: FakeHub) -> None:
    notes: list[str] = []
    open_source(MODEL, CallContext(notify=notes.append)).close()
    assert notes[0].startswith(f"{MODEL}: sub [1]/tiny-Q4_K_M.gguf, ")
    assert "is taken; there are also Q8_0 (" in notes[0]
    # Safetensors go before GGUF where both are there and nothing is named.
    repository.extra = ("model.safetensors",)
    with pytest.raises(Exception, match=r"config\.json|model\.safetensors"):
        open_source(MODEL)
