"""Hugging Face folders: what a healthy one gives, and every way in which one can be wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.sources import open_source
from converters.sources.source import INDEX, SINGLE
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import SourceError, SparityError

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Callable[[str], Path]:
    """A copy of a tiny checkpoint that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return copy


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(SparityError, match=sentence) as caught:
        open_source(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", tiny.CASES)
def test_tensors_are_those_of_the_files(name: str, checkpoint: Callable[[str], Path]) -> None:
    case = tiny.CASES[name]
    with open_source(str(checkpoint(name))) as source:
        assert source.config == tiny.config_of(case)
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
    "tokenizer.json": "no tokenizer, but tokenizer.json is needed",
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
    refused(path, "only tokenizer.model.*save_pretrained")


def test_only_pickled_weights(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / SINGLE).rename(path / "pytorch_model.bin")
    refused(path, "pickled")


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
        ("rope_parameters", {"rope_type": "yarn", "factor": 2}, "rope_type='yarn'"),
        ("num_hidden_layers", 3, r"tensor model\.layers\.2\..* missing"),
        ("intermediate_size", 100, r"\(128, 64\), but the configuration asks for \(100, 64\)"),
        ("attention_bias", True, r"q_proj\.bias of shape \(64,\) is missing"),
        ("quantization_config", {"quant_method": "gptq"}, "quant_method='gptq'"),
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


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "\xff", '{"a": ' * 100_000], ids=range(6)
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_damaged_json(name: str, content: str, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / name).write_bytes(content.encode("latin-1"))
    refused(path, f"{name}: not (valid JSON|a JSON object)")


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


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "C:model.safetensors",
        ".model.safetensors",
        "model.bin",
        "nul\0.safetensors",
        "",
        None,
        7,
    ],
)
def test_tricks_in_shard_names(name: Any, folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    edit(path / INDEX, lambda content: content["weight_map"].update({UP: name}))
    refused(path, "is not the plain name")


def test_missing_shards(folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    (path / "model-00002-of-00003.safetensors").unlink()
    refused(path, "1 of 3 shards are missing, the first is model-00002-of-00003.safetensors")


def test_index_that_lies(folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    wrong = "model-00001-of-00003.safetensors"
    edit(
        path / INDEX,
        lambda content: content["weight_map"].update(
            {name: wrong for name in content["weight_map"] if name.endswith("up_proj.weight")}
        ),
    )
    refused(path, "is not in it, though model.safetensors.index.json says so")


@pytest.mark.parametrize("value", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_index_without_a_map(value: dict[str, Any], folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    (path / INDEX).write_text(json.dumps(value))
    refused(path, "weight_map is missing")


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 5000, -1])
def test_truncated_weights(keep: int, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / SINGLE).write_bytes((path / SINGLE).read_bytes()[:keep])
    refused(path, "not a valid safetensors file")


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


LIES: dict[str, Any] = {
    "shape": {"shape": [128, 65]},
    "negative": {"shape": [-128, -64]},
    "overflow": {"shape": [1 << 40, 1 << 40]},
    "outside": {"data_offsets": [1 << 40, (1 << 40) + 32768]},
    "backwards": {"data_offsets": [32768, 0]},
    "overlap": {"data_offsets": [0, 32768]},
    "unknown dtype": {"dtype": "X9"},
}


@pytest.mark.parametrize("name", LIES)
def test_header_that_lies(name: str, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    rewrite_header(path / SINGLE, lambda header: header[UP].update(LIES[name]))
    refused(path, "not a valid safetensors file")


def test_header_length_that_lies(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    content = (path / SINGLE).read_bytes()
    for length in (0, 1, 1 << 62, (1 << 64) - 1):
        (path / SINGLE).write_bytes(struct.pack("<Q", length) + content[8:])
        refused(path, "not a valid safetensors file")


@pytest.mark.parametrize(("dtype", "shape"), [("I32", [128, 64]), ("F64", [128, 32])])
def test_unsupported_dtype(dtype: str, shape: list[int], folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    rewrite_header(
        path / SINGLE, lambda header: header[UP].update({"dtype": dtype, "shape": shape})
    )
    refused(path, "dtype I32" if dtype == "I32" else r"shape \(128, 32\)")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("healthy") / "model", "llama_small")


@settings(
    max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from([SINGLE, "config.json", "tokenizer_config.json"]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_never_escapes(
    healthy: Path,
    tmp_path: Path,
    name: str,
    flips: list[tuple[float, int]],
    keep: float | None,
) -> None:
    folder = Path(shutil.copytree(healthy, tmp_path / "model", dirs_exist_ok=True))
    content = bytearray((healthy / name).read_bytes())
    end = 3000 if name == SINGLE else len(content) - 1  # the header is what matters
    for place, change in flips:
        content[int(place * end)] ^= change
    if keep is not None:
        del content[int(keep * len(content)) :]
    (folder / name).write_bytes(content)
    with contextlib.suppress(SparityError), open_source(str(folder)) as source:
        for tensor in ModelConfig.from_dict(source.config).tensor_shapes():
            source.read(tensor)
