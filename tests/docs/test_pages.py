"""The pages in docs/ against the code: the worked example runs, and what is named exists."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from own_files import own_files
from packing import pack_folder

from converters.methods import METHODS
from converters.pack import _INPUT_MAJOR, BUNDLED
from converters.pack_options import PackOptions
from sparity_edge.choices import DEFAULT_PLAN, LAYOUTS
from sparity_edge.config.model_config import LAYER_LINEARS
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.shards import FORMAT_VERSION
from sparity_edge.plans.plan import RULES
from sparity_edge.plans.plan_bytes import BY_PIECE, FIELDS, PER_LEVEL, PLAN_VERSION
from sparity_edge.plans.plan_file import plan_names, read_plan

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in own_files() if name.startswith("docs/") and name.endswith(".md")]
FORMAT = (DOCS / "format.md").read_text(encoding="utf-8")


def example() -> str:
    """The script on the page about adding a method."""
    page = (DOCS / "adding-a-method.md").read_text(encoding="utf-8")
    found = re.findall(
        r"<!-- example: begin -->\n```python\n(.*?)```\n<!-- example: end -->", page, re.DOTALL
    )
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def packed(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A packed folder whose inputs can be skipped, of this test's own."""
    return pack_folder(checkpoint("llama_gqa"), tmp_path / "packed", "f32", "input")


def test_the_worked_example_adds_a_method(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, text = tmp_path / "column_norms.py", tmp_path / "text.txt"
    script.write_text(example(), encoding="utf-8")
    assert len([line for line in example().splitlines() if line]) <= 30
    text.write_text("A laptop reads every weight once for each word. " * 300, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(script), str(packed), str(text)])
    runpy.run_path(str(script), run_name="__main__")
    assert plan_names(packed) == ["column-norms"]
    family = read_plan(open_folder(packed), "column-norms")
    stored, ids = open_packed(packed), list(range(10, 50))
    logits, fractions = [], []
    for machine in (ReferenceMachine(), ThreadedMachine(2)):
        model = Model(stored, machine, 64, "f32")
        model.set_plan(family.at_sparsity(0.4))
        read = [model.read([token], sparse=True).copy() for token in ids]
        logits.append(np.stack(read))
        fractions.append(model.active_weight_fraction)
        model.close()
    masked, skipped = logits
    np.testing.assert_allclose(skipped, masked, atol=1e-4 * np.abs(masked).max())
    assert fractions[0] == pytest.approx(fractions[1])
    assert 0.2 < fractions[1] < 0.9


def named_files() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for name in re.findall(r"`((?:\w+/)+\w+\.\w+)`", page.read_text(encoding="utf-8")):
            yield page.name, name


def test_files_that_pages_name_exist() -> None:
    missing = [each for each in named_files() if not (ROOT / each[1]).exists()]
    assert not missing


def test_code_that_pages_name_exists() -> None:
    code = "".join(
        (ROOT / name).read_text(encoding="utf-8")
        for name in own_files()
        if name.startswith(("sparity_edge/", "converters/", "bench/")) and name.endswith(".py")
    )
    for page in PAGES:
        named = re.findall(r"`([A-Za-z_]\w+)`", page.read_text(encoding="utf-8"))
        inner = (name for name in named if re.search(r"._|[a-z][A-Z]", name))
        unknown = [name for name in inner if not re.search(rf"\b{name}\b", code + FORMAT)]
        assert not unknown, page.name


def test_every_method_has_its_place() -> None:
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert not [name for name in (DEFAULT_PLAN, *METHODS) if f"`{name}`" not in page]


def test_the_versions_of_the_format() -> None:
    assert FORMAT.startswith(f"# The packed folder, version {FORMAT_VERSION}\n")
    assert f'"version": {FORMAT_VERSION},' in FORMAT
    assert f'{{"version": {PLAN_VERSION}, "name"' in FORMAT


def test_the_layouts_of_the_format() -> None:
    rows = re.findall(r"^(\w+) \| ([\w, ]*) \| ([\w, ]*) \| ([\w, ]*)$", FORMAT, re.MULTILINE)
    assert [row[0] for row in rows] == list(LAYOUTS)
    linears = [name.split(".")[1] for name in LAYER_LINEARS]
    for name, *cells in rows:
        turned = {each.split(".")[1] for each in _INPUT_MAJOR[name]}
        together = {"up_proj", "down_proj"} if name in BUNDLED else set()
        wanted = ({*linears} - turned - together, turned - together, together)
        for cell, names in zip(cells, wanted, strict=True):
            said = {"all": linears, "none": []}.get(cell, cell.split(", "))
            assert set(said) == names, (name, cell)


def test_the_manifest_and_the_plans_of_the_format() -> None:
    blocks = re.findall(r"```json\n(\{.*?\})\n```", FORMAT, re.DOTALL)
    manifest, _, plan = map(json.loads, blocks)
    assert manifest["options"] == vars(PackOptions(layout="dense"))
    assert set(plan) == set(FIELDS)
    assert re.search("`" + "`, `".join(RULES[:-1]) + f"` or `{RULES[-1]}`", FORMAT)
    section = FORMAT.split("\n## Plans\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    said = {word for cell in named for word in re.findall(r"`(\w+)", cell)}
    assert said == {*PER_LEVEL, *BY_PIECE, "means"}
