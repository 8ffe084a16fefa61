"""Headers of GGUF files that lie about sizes, types and offsets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from converters.sources import open_source
from sparity_edge.errors import SourceError


def header(*parts: bytes, version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(name: bytes = b"t", dims: tuple[int, ...] = (32,), kind: int = 0, at: int = 0) -> bytes:
    fixed = struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    return string(name) + fixed + struct.pack("<IQ", kind, at)


ARRAY_HEAD = string(b"k") + struct.pack("<I", 9)
LIES = {
    "empty file": (b"", "cut short"),
    "other magic": (b"GGML" + bytes(60), "first four bytes"),
    "version": (header(version=1), "version is 1"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "tensor count": (header(tensors=1 << 62), "tensors"),
    "key count": (header(keys=1 << 62), "metadata keys"),
    "counts without content": (header(tensors=100, keys=100), "cut short"),
    "key length": (header(struct.pack("<Q", 1 << 63), keys=1), "cut short"),
    "tensor name": (header(tensor(b"\xff"), bytes(512), tensors=1), "lacks general.architecture"),
    "value type": (header(string(b"k"), struct.pack("<I", 77), bytes(8), keys=1), "type 77"),
    "endless list": (header(ARRAY_HEAD + struct.pack("<IQ", 0, 1 << 60), keys=1), "items"),
    "list too long": (header(ARRAY_HEAD + struct.pack("<IQ", 4, 1 << 20), keys=1), "cut short"),
    "lists in lists": (header(ARRAY_HEAD, struct.pack("<IQ", 9, 1) * 9, keys=1), "deeper than 4"),
    "key twice": (header(*([string(b"k") + struct.pack("<IB", 0, 1)] * 2), keys=2), "twice"),
    "tensor twice": (header(tensor(), tensor(), bytes(512), tensors=2), "twice"),
    "dimensions": (header(tensor(dims=(1,) * 99), bytes(99), tensors=1), "99 dimensions"),
    "no dimension": (header(tensor(dims=()), bytes(99), tensors=1), "0 dimensions"),
    "overflow": (header(tensor(dims=(1 << 32, 1 << 32)), bytes(99), tensors=1), "beyond the end"),
    "offset": (header(tensor(at=1 << 63), bytes(512), tensors=1), "beyond the end"),
    "alignment": (header(tensor(at=3), bytes(512), tensors=1), "starts at 3"),
    "number type": (header(tensor(kind=999), bytes(512), tensors=1), "number type 999"),
    "block": (header(tensor(kind=8, dims=(33,)), bytes(512), tensors=1), "no multiple of 32"),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_header(tmp_path: Path, name: str) -> None:
    content, sentence = LIES[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=sentence):
        open_source(str(path))


NEEDLESS = {
    "text": string(b"general.author") + struct.pack("<I", 8) + string(b"caf\xe9"),
    "texts": string(b"general.tags") + struct.pack("<IIQ", 9, 8, 1) + string(b"\xff"),
    "lists": string(b"a.b") + struct.pack("<IIQIQIQ", 9, 9, 2, 4, 0, 8, 1) + string(b"\xff"),
    "name": string(b"\xff\xfe") + struct.pack("<IQ", 10, 7),
    "other type": string(b"llama.vocab_size") + struct.pack("<I", 8) + string(b"many"),
}


@pytest.mark.parametrize("name", NEEDLESS)
def test_metadata_that_nobody_needs(write: Callable[..., str], name: str) -> None:
    path = Path(write())
    insert(path, NEEDLESS[name])
    open_source(str(path)).close()


def test_a_text_that_is_needed_and_no_utf8(write: Callable[..., str]) -> None:
    path = Path(write(metadata={"tokenizer.chat_template": None}))
    insert(path, string(b"tokenizer.chat_template") + struct.pack("<I", 8) + string(b"\xff"))
    with pytest.raises(SourceError, match="chat_template is a text that is not UTF-8"):
        open_source(str(path))


def insert(path: Path, entry: bytes) -> None:
    """Put an entry before the metadata, with another that keeps the alignment of the tensors."""
    fill = string(b"fill") + struct.pack("<I", 8)
    fill += string(b"x" * (-(len(entry) + len(fill) + 8) % 32))
    content = path.read_bytes()
    tensors, keys = struct.unpack("<QQ", content[8:24])
    head = content[:8] + struct.pack("<QQ", tensors, keys + 2)
    path.write_bytes(head + entry + fill + content[24:])


@pytest.mark.parametrize("keep", [3, 20, 200, 2000, 8000, 100_000, 2_000_000])
def test_truncated(write: Callable[..., str], keep: int) -> None:
    path = Path(write())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match="cut short"):
        open_source(str(path))


def test_unsupported_number_type(write: Callable[..., str]) -> None:
    path = Path(write())
    content = path.read_bytes()
    place = content.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 16
    path.write_bytes(content[:place] + struct.pack("<I", Kind.I32) + content[place + 4 :])
    with pytest.raises(SourceError, match="number type I32"):
        open_source(str(path))


@pytest.mark.parametrize("number", [42, 137])
def test_number_type_that_is_newer(write: Callable[..., str], number: int) -> None:
    path = Path(write())
    content = path.read_bytes()
    place = content.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 16
    path.write_bytes(content[:place] + struct.pack("<I", number) + content[place + 4 :])
    with pytest.raises(SourceError, match=f"number type {number}, which this version") as caught:
        open_source(str(path))
    assert "fetch it again" not in str(caught.value)


def test_no_permission_and_directories(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(header())
    with pytest.raises(SourceError, match="name the GGUF file itself"):
        open_source(str(folder))
