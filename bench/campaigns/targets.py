"""Every kind of file that the product reads: a healthy one, how it is damaged, and who reads it.

`TARGETS` says it as a table; `Bench` makes the healthy files once and tries one damaged copy after
another, as a user would: open, pack, load, answer. Stands on the tiny models of the tests.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import gguf_files
import tiny
from campaigns.mutations import damaged_bytes, damaged_json, damaged_text
from packing import pack_folder
from plan_families import family

from sparity_edge import Generator, SamplingParams
from sparity_edge.chat import conversation
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.manifest import MANIFEST
from sparity_edge.plans.plan_file import add_plan

SHORT = SamplingParams(temperature=0, max_tokens=3)
SAY = [{"role": "user", "content": "Name a river."}]
SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
Damage = Callable[[bytes, Random], bytes]


class Target(NamedTuple):
    """One kind of file."""

    base: str  # the healthy folder it stands in
    file: str
    damage: Damage
    weight: int  # of a hundred and a few: its share of the cases


def damaged_safetensors(data: bytes, random: Random) -> bytes:
    """A safetensors file whose header is damaged as JSON, its length told, or anywhere."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.4:
        return damaged_bytes(data, random, 8 + size)
    header = json.loads(data[8 : 8 + size])
    layouts = header.get("__metadata__", {})
    inner = [key for key, text in layouts.items() if text.startswith("{")]
    if inner and random.random() < 0.6:
        key = random.choice(inner)
        layouts[key] = damaged_json(layouts[key].encode(), random).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = damaged_json(data[8 : 8 + size], random)
    text += b" " * (-len(text) % 64)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _gguf(data: bytes, random: Random) -> bytes:
    return damaged_bytes(data, random, 9000)


TARGETS = {
    "config.json": Target("checkpoint", "config.json", damaged_json, 14),
    "tokenizer.json": Target("checkpoint", "tokenizer.json", damaged_json, 15),
    "tokenizer_config.json": Target("checkpoint", "tokenizer_config.json", damaged_json, 10),
    "special_tokens_map.json": Target("checkpoint", "special_tokens_map.json", damaged_json, 4),
    "added_tokens.json": Target("checkpoint", "added_tokens.json", damaged_json, 3),
    "generation_config.json": Target("checkpoint", "generation_config.json", damaged_json, 5),
    "chat_template.jinja": Target("checkpoint", "chat_template.jinja", damaged_text, 3),
    "index": Target("checkpoint", INDEX, damaged_json, 5),
    "safetensors": Target(
        "checkpoint", "model-00001-of-00003.safetensors", damaged_safetensors, 10
    ),
    "gguf": Target("gguf", "model.gguf", _gguf, 15),
    "manifest": Target("packed", MANIFEST, damaged_json, 6),
    "packed shard": Target("packed", SHARD, damaged_safetensors, 8),
    "packed config.json": Target("packed", "config.json", damaged_json, 4),
    "packed tokenizer.json": Target("packed", "tokenizer.json", damaged_json, 4),
    "plan": Target("packed", "plan-mixed.safetensors", damaged_safetensors, 6),
    "chat": Target("saved", "chat.json", damaged_json, 5),
    "KV cache": Target("saved", "cache.safetensors", damaged_safetensors, 5),
}


class Bench:
    """Healthy files in a folder of its own, and the reading of damaged copies.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._trial = folder, folder / "t"
        _make_checkpoint(folder / "checkpoint")
        (folder / "gguf").mkdir()
        gguf_files.write(folder / "gguf/model.gguf")
        packed = pack_folder(folder / "checkpoint", folder / "packed", "int8", "mixed")
        plan = dataclasses.replace(family(open_packed(packed), "mixed"), name="mixed")
        add_plan(open_folder(packed), plan)
        self._model = Generator.load(packed, threads=1)
        (folder / "saved").mkdir()
        self._save(folder / "saved")

    def _save(self, folder: Path) -> None:
        said = conversation.Conversation("Be brief.")
        said.say("user", "Name a river.")
        said.say("assistant", "The Rhine.")
        params = SamplingParams(temperature=0.5, stop=("\n",), logit_bias={3: -1.0}, seed=1)
        conversation.save(folder / "chat.json", said, params, "tiny")
        self._model.generate("The river", SHORT)
        self._model.save_cache(folder / "cache.safetensors")

    def case(self, kind: str, number: int) -> Path:
        """The folder of a case: a healthy one with one file damaged."""
        target = TARGETS[kind]
        shutil.rmtree(self._trial, ignore_errors=True)
        shutil.copytree(self._folder / target.base, self._trial)
        path = self._trial / target.file
        random = Random(f"{kind} {number}")
        path.write_bytes(target.damage(path.read_bytes(), random))
        if target.base == "packed" and kind != "manifest" and random.random() < 0.9:
            _tell_size(self._trial, target.file)
        return self._trial

    def read(self, kind: str, number: int) -> None:
        """Make a case and read it to the end, as its kind is read by users."""
        folder = self.case(kind, number)
        if kind == "chat":
            said, params, _ = conversation.load(folder / "chat.json")
            self._model.chat(said.turns() + SAY, dataclasses.replace(params, max_tokens=3))
        elif kind == "KV cache":
            self._model.load_cache(folder / "cache.safetensors")
            self._model.generate("The river ran", SHORT)
        elif TARGETS[kind].base == "packed":
            self._read_packed(folder, kind)
        else:
            source = folder / "model.gguf" if kind == "gguf" else folder
            answer(pack_folder(source, folder / "out"))

    def _read_packed(self, folder: Path, kind: str) -> None:
        if kind == "plan":
            answer(folder, plan="mixed", sparsity=0.3)
        else:
            answer(folder)
        verify_packed(folder)


def answer(folder: Path, **options: Any) -> None:
    """Load a model, continue a text and reply to a message."""
    with Generator.load(folder, threads=1, offline=True, **options) as model:
        model.generate("The river", SHORT)
        model.chat(SAY, SHORT)


def _make_checkpoint(folder: Path) -> None:
    tiny.build(folder, "llama_sharded")
    written = {
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}},
        "added_tokens.json": {"<|im_start|>": 3, "<|im_end|>": 4},
    }
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _tell_size(folder: Path, name: str) -> None:
    """Have the manifest list the size that a file now has, so that reading goes beyond it."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][name]["size"] = (folder / name).stat().st_size
    path.write_text(json.dumps(manifest), encoding="utf-8")
