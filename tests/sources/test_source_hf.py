"""Hugging Face folders: what a healthy one gives, and files of it that are missing or wrong."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tiny
from checkpoint_edits import UP, edit, refused

from converters.sources import open_source
from converters.sources.hf import HuggingFaceSource
from converters.sources.source import INDEX, SINGLE
from sparity_edge.errors import SourceError


@pytest.mark.parametrize("name", tiny.CASES)
def test_tensors_are_those_of_the_files(name: str, checkpoint: Callable[[str], Path]) -> None:
    case = tiny.CASES[name]
    with HuggingFaceSource(checkpoint(name), name) as source:
        assert source.config_json == tiny.config_of(case)
        assert source.generation_config == case.generation
        for tensor, values in tiny.make_tensors(case).items():
            read = source.read(tensor)
            assert isinstance(read, np.ndarray)
            assert read.dtype == values.dtype
            assert source.native(tensor) is None
            np.testing.assert_array_equal(read, values)


def test_blocks_of_rows(checkpoint: Callable[[str], Path]) -> None:
    with open_source(str(checkpoint("llama_sharded"))) as source:
        whole = source.read(UP)
        for start, stop in ((0, 1), (5, 17), (100, 128)):
            part = source.read(UP, start, stop)
            assert part.dtype == ml_dtypes.bfloat16
            np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize(
    ("name", "found"), [("llama_tied", True), ("llama_untied", True), ("llama_small", False)]
)
def test_chat_template(name: str, found: bool, checkpoint: Callable[[str], Path]) -> None:
    with open_source(str(checkpoint(name))) as source:
        template = source.tokenizer_files.get("chat_template.jinja")
    assert (template == tiny.CHAT_TEMPLATE.encode()) == found


def test_named_chat_templates(folder: Callable[[str], Path]) -> None:
    path = folder("llama_small")
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}, 5]
    edit(path / "tokenizer_config.json", lambda content: content.update(chat_template=named))
    with open_source(str(path)) as source:
        assert source.tokenizer_files["chat_template.jinja"] == b"d"


def test_fingerprint_is_the_content(folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = folder("llama_sharded")
    moved = Path(shutil.copytree(path, tmp_path / "elsewhere"))
    before = fingerprint(path)
    assert before == fingerprint(moved)
    assert len(before) == len(hashlib.sha256().hexdigest())
    shard = sorted(moved.glob("*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert before != fingerprint(moved)


def fingerprint(path: Path) -> str:
    with open_source(str(path)) as source:
        return source.fingerprint()


def test_generation_config_is_optional(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / "generation_config.json").unlink()
    with open_source(str(path)) as source:
        assert source.generation_config == {}


def test_no_such_model() -> None:
    for name in ("no-such-model", "", "a/b/c", "x" * 5000, "nul\0byte"):
        with pytest.raises(SourceError, match="no such file or folder"):
            open_source(name)


MISSING = {
    "config.json": "no config.json",
    "tokenizer.json": "no tokenizer, neither",
    SINGLE: f"neither {SINGLE} nor {INDEX}",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_file(name: str, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / name).unlink()
    refused(path, MISSING[name])


def test_only_a_sentencepiece_model(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / "tokenizer.json").rename(path / "tokenizer.model")
    refused(path, "tokenizer.model: no SentencePiece model, or a damaged one")


def test_only_pickled_weights(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / SINGLE).rename(path / "pytorch_model.bin")
    refused(path, "pickled")


@pytest.mark.parametrize("kept", [True, False], ids=["with config.json", "without"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("consolidated.00.pth", r"original layout \(consolidated\.00\.pth\), .* pickled.*fetch"),
        ("consolidated.safetensors", r"original layout \(consolidated\.safetensors\); fetch"),
        ("original/consolidated.00.pth", r"layout \(original.consolidated\.00\.pth\), .* pickled"),
        ("params.json", "original layout; fetch the files for transformers .*index.json names"),
    ],
)
def test_the_layout_of_publishers(
    name: str, words: str, kept: bool, folder: Callable[[str], Path]
) -> None:
    path = folder("llama_tied")
    (path / "original").mkdir()
    (path / SINGLE).rename(path / name)
    if not kept:
        (path / "config.json").unlink()
    refused(path, words)


def test_other_kinds_of_path(folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = folder("llama_tied")
    refused(path / SINGLE, "pass the folder")
    (path / "sparity.json").write_text("{}")
    refused(path, "packed already")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "m.gguf").write_bytes(b"")
    refused(tmp_path / "empty", "name the GGUF file itself, for example .*m.gguf")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("hidden_size", None, "hidden_size is missing"),
        ("num_hidden_layers", "two", "num_hidden_layers='two'"),
        ("architectures", ["MixtralForCausalLM"], "MixtralForCausalLM"),
        ("hidden_act", "gelu", "hidden_act='gelu'"),
        ("rope_parameters", {"rope_type": "ntk", "factor": 2}, "rope_type='ntk'"),
        ("num_hidden_layers", 3, r"tensor model\.layers\.2\..* missing"),
        ("intermediate_size", 100, r"\(128, 64\), but the configuration asks for \(100, 64\)"),
        ("quantization_config", {"quant_method": "hqq"}, "quant_method='hqq'"),
    ],
)
def test_config_that_does_not_fit(
    key: str, value: Any, sentence: str, folder: Callable[[str], Path]
) -> None:
    path = folder("llama_tied")
    edit(path / "config.json", lambda content: content.update({key: value}))
    refused(path, sentence)


def test_tensors_that_change_the_result_are_not_ignored(folder: Callable[[str], Path]) -> None:
    path = folder("llama_biases")
    edit(path / "config.json", lambda content: content.update(mlp_bias=False))
    refused(path, r"mlp\.\w+\.bias has no place")


@pytest.mark.parametrize("template", [5, {"a": 1}, "x" * (2 << 20)], ids=range(3))
def test_chat_template_of_a_wrong_kind(template: Any, folder: Callable[[str], Path]) -> None:
    path = folder("llama_small")
    edit(path / "tokenizer_config.json", lambda content: content.update(chat_template=template))
    refused(path, "chat_template is neither")


def test_file_that_is_too_large(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / "chat_template.jinja").write_bytes(b" " * ((1 << 20) + 1))
    refused(path, "chat_template.jinja: larger than")


def test_no_permission(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder("llama_tied")

    def deny(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused(path, r"config\.json: cannot be read \(Permission denied\)")
