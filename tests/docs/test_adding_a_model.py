"""The page about adding a family of models: its file is registered, packed and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf_files
import numpy as np
import pytest
from model_families import registered

from converters.sources import open_source
from sparity_edge import ConfigError, Generator, SamplingParams, read_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-model.md"
GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
PROMPT = "The little model reads"


@pytest.fixture(scope="module")
def _pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The file of the page, registered."""
    found = re.findall(
        r"<!-- example: begin -->\n```python\n(.*?)```\n<!-- example: end -->",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(found) == 1
    with registered(tmp_path_factory.mktemp("families"), "pebble", found[0]):
        yield


@pytest.fixture
def qwen2(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen2_plain")


@pytest.fixture
def pebble(_pebble: None, qwen2: Path, tmp_path: Path) -> Path:
    """The weights of a Qwen2, which has the same biases, under a config.json of the family."""
    for file in qwen2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "pebble", "architectures": ["PebbleForCausalLM"]}
    assert config.pop("num_key_value_heads") == 2
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_the_family_of_the_page_is_packed_and_answers(pebble: Path, qwen2: Path) -> None:
    answers = []
    for folder in (pebble, qwen2):
        with Generator.load(str(folder), dtype="f32", threads=1) as generator:
            assert generator.info()["model_type"] == ("pebble" if folder == pebble else "qwen2")
            answers.append(generator.generate(PROMPT, GREEDY).token_ids)
    assert answers[0] == answers[1]
    assert len(answers[0]) == 16


def test_its_config_is_refused_by_key(pebble: Path) -> None:
    config = json.loads((pebble / "config.json").read_text(encoding="utf-8"))
    assert read_config(config).model_type == "pebble"
    assert read_config({**config, "use_mlp_bias": True}).mlp_bias
    with pytest.raises(ConfigError, match=r"attention_sinks=True is not supported .*'pebble'"):
        read_config({**config, "attention_sinks": True})


@pytest.mark.usefixtures("_pebble")
def test_its_gguf_file_is_read(tmp_path: Path) -> None:
    weights = gguf_files.tensors(("attn_q", "attn_k", "attn_v"))
    path = gguf_files.write(tmp_path / "pebble.gguf", architecture="pebble", weights=weights)
    with open_source(str(path)) as source:
        assert source.config.model_type == "pebble"
        assert not source.config_json["use_mlp_bias"]
        name = gguf_files.checkpoint_name("blk.0.attn_v.weight")
        assert np.array_equal(source.read(name), weights["blk.0.attn_v.weight"])
