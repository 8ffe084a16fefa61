"""Special tokens beside tokenizer.json: what transformers makes of the same folder; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizer_folders as folders

from sparity_edge.errors import SourceError
from sparity_edge.text.tokenizer import Tokenizer

GOLDEN = json.loads(
    (Path(__file__).parent.parent / "golden" / "tokenizer_files.json").read_text("utf-8")
)


@pytest.mark.parametrize("name", folders.CASES)
def test_as_transformers(name: str, tmp_path: Path) -> None:
    golden = GOLDEN[name]
    tokenizer = Tokenizer.from_folder(folders.write(tmp_path, name))
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in folders.TEXTS]
    assert ids == golden["ids"]
    assert [tokenizer.decode(each) for each in ids] == golden["decoded"]
    special = [token for token in range(tokenizer.vocab_size) if tokenizer.is_special(token)]
    assert special == golden["special"]
    assert tokenizer.bos_token_id == golden["bos"]
    assert tokenizer.eos_token_ids == (() if golden["eos"] is None else (golden["eos"],))
    assert tokenizer.vocab_size == golden["size"]
    assert tokenizer._special == golden["named"]


DAMAGE: list[tuple[str, Any]] = [
    ("tokenizer_config", {"eos_token": "\ud800"}),
    ("tokenizer_config", {"added_tokens_decoder": {"300": {"content": "a\udfff"}}}),
    ("tokenizer_config", {"added_tokens_decoder": {"x": {"content": "a"}}}),
    ("tokenizer_config", {"added_tokens_decoder": {"300": "a" * 2000}}),
    ("tokenizer_config", {"added_tokens_decoder": ["a"]}),
    ("tokenizer_config", {"extra_special_tokens": [5]}),
    ("tokenizer_config", {"extra_special_tokens": [f"<{i}>" for i in range(70_000)]}),
    ("tokenizer_config", {"extra_special_tokens": [f"<{i}>" for i in range(5_000)]}),
    ("special_tokens_map", {"additional_special_tokens": ["\ud800"]}),
    ("added_tokens", {"a": "1e400"}),
    ("added_tokens", {"\udc80": 300}),
]


@pytest.mark.parametrize(("file", "content"), DAMAGE, ids=range(len(DAMAGE)))
def test_damage_ends_in_a_sentence(file: str, content: Any, tmp_path: Path) -> None:
    path = folders.write(tmp_path, "nothing")
    (path / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"tokenizer_config\.json.*\.$") as caught:
        Tokenizer.from_folder(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [None, True, 7, [], {"content": None}])
def test_a_part_without_a_token(value: Any, tmp_path: Path) -> None:
    path = folders.write(tmp_path, "nothing")
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}))
    assert Tokenizer.from_folder(path).eos_token_ids == ()


def test_template_variables_cannot_be_taken(tmp_path: Path) -> None:
    path = folders.write(tmp_path, "nothing")
    own = {"messages": "x", "mark": "<|turn|>"}
    template = "{{ mark }}{{ messages[0].content }}\ud800"
    config = {"extra_special_tokens": own, "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(path)
    assert tokenizer.render_chat([{"role": "user", "content": "Hi"}]) == "<|turn|>Hi?"


def test_special_tokens_that_are_part_of_the_text_are_shown(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folders.write(tmp_path, "decoder"))
    ids = tokenizer.encode("a<|turn|>b<|over|>", add_special_tokens=False)

    def text(*shown: str) -> str:
        stream = tokenizer.stream(shown=shown)
        return "".join(map(stream.push, ids)) + stream.flush()

    assert text() == "ab"
    assert text("<|turn|>", "<tool_call>") == "a<|turn|>b"
