"""What a model's card says that goes along with its weights: the licence, and what it was made of.

The keys are those of model cards on the Hub: `license`, where that is "other" also `license_name`
and `license_link`, and `base_model`. Read from the head of a README.md, from what the Hub tells of
a model, and from the metadata of a GGUF file; what is no short text there is left out. Knows
nothing of packing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparity_edge.packed.manifest import LICENSE_KEYS, card_facts

README = "README.md"
MAX_README_BYTES = 4 << 20
_OF_GGUF = dict(zip(("general.license", "general.license.name", "general.license.link"),
                    LICENSE_KEYS, strict=True))  # fmt: skip


def card_of_folder(folder: Path) -> dict[str, str]:
    """What the README.md of a folder says of the licence; nothing where it cannot be read."""
    path = folder / README
    if not path.is_file() or path.stat().st_size > MAX_README_BYTES:
        return {}
    from huggingface_hub import metadata_load

    try:
        return licence_in(metadata_load(path) or {})
    except Exception:  # a card is prose, written by anybody: its faults do not concern the weights
        return {}


def card_of_hub(repository: str, data: Any) -> dict[str, str]:
    """What the Hub tells of a model: its licence, and that packs of it are made of this model.

    Args:
        repository: `org/name`.
        data: the metadata of its card as the Hub client gives them; None: there are none.
    """
    told = data.to_dict() if data is not None else {}
    return {**licence_in(told), "base_model": repository}


def card_of_gguf(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the metadata of a GGUF file say of the licence."""
    return licence_in({name: metadata.get(key) for key, name in _OF_GGUF.items()})


def licence_in(data: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a licence among those of a card; several licences are one text.

    Args:
        data: anything that was read of a card.
    """
    found = {name: data.get(name) for name in LICENSE_KEYS}
    several = found["license"]
    if isinstance(several, list) and all(isinstance(each, str) for each in several):
        found["license"] = ", ".join(several)
    facts = card_facts(found)
    return facts if "license" in facts else {}
