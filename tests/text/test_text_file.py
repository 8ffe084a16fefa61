"""Text files from outside: byte order marks, other encodings, names that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converters.calibration.windows import read_documents
from sparity_edge.errors import OptionError
from sparity_edge.text import text_file
from sparity_edge.text.text_file import read_text_file

BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(BOM + "Grüße".encode())
    assert read_text_file(path) == "Grüße"
    assert list(read_documents([path])) == ["Grüße"]
    path.write_bytes(b"inside " + BOM)  # only in front it is a mark
    assert read_text_file(path) == "inside \ufeff"


@pytest.mark.parametrize("name", ["text.jsonl", "TEXT.JSONL", "text.Jsonl"])
def test_lines_of_json_whatever_the_case_of_the_ending(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = [json.dumps({"text": text}) for text in ("one", "two")]
    path.write_bytes(BOM + "\r\n".join(lines).encode())
    assert list(read_documents([path])) == ["one", "two"]


def test_what_is_no_text_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("from PowerShell", encoding="utf-16")
    with pytest.raises(OptionError, match="not UTF-8 text"):
        read_text_file(path)
    for name in (tmp_path / "absent", tmp_path):
        with pytest.raises(OptionError, match="cannot be read"):
            list(read_documents([name]))
    with pytest.raises(OptionError, match="no name of a file"):
        read_text_file("zero\0byte")
    monkeypatch.setattr(text_file, "MAX_TEXT_BYTES", 10)
    with pytest.raises(OptionError, match="longer than"):
        read_text_file(path)
