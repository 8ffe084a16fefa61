"""The model card of a packed folder: metadata that the Hub reads, and a page for people.

Number formats and plans stand in it as the folder has them: nothing is measured here, and what was
not measured is not claimed. Texts of a folder may be anybody's, so none goes into the page as it
is. Knows nothing of files that go up, nor of the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparity_edge.choices import LAYOUTS
from sparity_edge.errors import SparityError
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.folder import PackedFolder
from sparity_edge.plans.plan import PlanFamily
from sparity_edge.plans.plan_file import plan_names, read_plan

LIBRARY = "sparity-edge"
WITHOUT_EVIDENCE = (0.2, 0.4)  # sparsities of which the fraction is shown where no KL is known
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")


def model_card(
    folder: PackedFolder,
    families: Sequence[PlanFamily],
    source: str,
    card: Mapping[str, str],
    repository: str,
) -> str:
    """The text of README.md.

    Args:
        folder: the packed folder.
        families: its plans.
        source: what it was made of.
        card: the licence, and the base model where that is on the Hub.
        repository: where it will be, `org/name`.
    """
    parts = [
        f"---\n{_metadata(folder, card, families)}\n---\n",
        f"# {_plain(repository.rpartition('/')[2])}\n",
        _origin(source, card),
        "## Number formats\n",
        *_formats(folder),
        *_plans(families),
        "## How to run it\n",
        _how_to_run(repository, families),
    ]
    return "\n".join(parts)


def _metadata(folder: PackedFolder, card: Mapping[str, str], families: Sequence[PlanFamily]) -> str:
    from huggingface_hub import ModelCardData

    licences = card["license"].split(", ")
    facts: dict[str, Any] = {**card, "license": licences if len(licences) > 1 else licences[0]}
    if "base_model" in card:
        facts["base_model_relation"] = "quantized"
    tags = [LIBRARY, "cpu", folder.config.model_type, *sorted(_bytes_by_format(folder))]
    if families:
        tags.append("activation-sparsity")
    return ModelCardData(
        library_name=LIBRARY, pipeline_tag="text-generation", tags=tags, **facts
    ).to_yaml()


def _origin(source: str, card: Mapping[str, str]) -> str:
    base = card.get("base_model")
    named = f"[{_plain(base)}](https://huggingface.co/{base})" if base else _plain(source)
    if base and source != base:
        named += f" ({_plain(source)})"
    licence = _plain(card["license"])
    if "license_name" in card:
        licence += f" ({_plain(card['license_name'])})"
    if "license_link" in card:
        licence += f", {_plain(card['license_link'])}"
    return (
        f"This is {named}, packed for {LIBRARY}, which runs it on CPUs. Its weights keep "
        f"the licence of the model that they were made of: {licence}.\n"
    )


def _formats(folder: PackedFolder) -> Iterable[str]:
    sizes = _bytes_by_format(folder)
    rows = [(name, f"{size / 1e6:.1f}") for name, size in sizes.most_common()]
    yield _table(("format", "MB"), rows)
    options = folder.manifest.get("options")
    layout = options.get("layout") if isinstance(options, dict) else None
    if layout in LAYOUTS:
        yield f"Layout `{layout}`; {folder.nbytes / 1e6:.1f} MB of weights in all.\n"


def _bytes_by_format(folder: PackedFolder) -> Counter[str]:
    """Bytes of the matrices in each number format."""
    found: Counter[str] = Counter()
    for layout in folder.layouts.values():
        if isinstance(layout, BundleLayout):
            # What the two share of a row is told apart by the bytes of each by itself.
            found[layout.up.dtype] += layout.up.nbytes
            found[layout.down.dtype] += layout.nbytes - layout.up.nbytes
        else:
            found[layout.dtype] += layout.nbytes
    return found


def readable_plans(folder: PackedFolder) -> list[PlanFamily]:
    """The plans that a folder carries and that fit it, by name."""
    found = []
    for name in plan_names(folder.path):
        try:
            found.append(read_plan(folder, name))
        except SparityError:  # for another model: of no use to anybody
            continue
    return found


def _plans(families: Sequence[PlanFamily]) -> Iterable[str]:
    if not families:
        return
    yield "## Sparsity plans\n"
    yield (
        "A plan skips weights that matter little for a token. Active: the share of the bytes of "
        "all decoder weights that is read, measured; KL: to the same model dense, in nats a "
        "token, measured on held-out text when the plan was made.\n"
    )
    rows = [row for family in families for row in _rows(family)]
    yield _table(("plan", "`--sparsity`", "active", "KL"), rows)
    yield "\n".join(f"- {each.name}: {_plain(each.method)}" for each in families) + "\n"


def _rows(family: PlanFamily) -> Sequence[tuple[str, ...]]:
    measured = [
        (family.name, f"{each['sparsity']:.2f}", f"{each['active']:.3f}", f"{each['kl']:.4f}")
        for each in evidence(family)
    ]
    if measured:
        return measured
    tried = [each for each in WITHOUT_EVIDENCE if each <= family.most] or [family.most]
    return [(family.name, f"{each:.2f}", f"{1 - each:.3f}", "not measured") for each in tried]


def evidence(family: PlanFamily) -> list[dict[str, float]]:
    """What was measured of a plan on held-out text: records of sparsity, active and kl."""
    found = family.notes.get("evidence")
    names = ("sparsity", "active", "kl")
    try:
        return [{name: float(each[name]) for name in names} for each in found or ()]
    except (TypeError, KeyError, ValueError):  # notes are anybody's
        return []


def _how_to_run(repository: str, families: Sequence[PlanFamily]) -> str:
    sparse = f" --sparsity {min(0.3, families[0].most):.2f}" if families else ""
    return f"""Where {LIBRARY} is installed, on the command line or in Python:

```
sparity-edge chat {repository}{sparse}
```

```python
from sparity_edge import Generator

with Generator.load("{repository}") as model:
    print(model.generate("Once upon a time").text)
```
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines) + "\n"


def _plain(text: str) -> str:
    """A text as Markdown that means nothing but itself, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
