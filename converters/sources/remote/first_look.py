"""A first look at a model on the Hub: what cannot run is refused before its weights are fetched.

Only the family is asked for, which both config.json and the Hub's own facts of a GGUF file name;
whoever opens the model checks all the rest. Knows nothing of the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.sources.gguf_config import demand_architecture
from converters.sources.shard_index import read_object
from sparity_edge.errors import SourceError
from sparity_edge.model.families import family_of


def look_at_config(path: Path, label: str) -> None:
    """Refuse a checkpoint of a family that is not supported.

    Args:
        path: its config.json.
        label: what errors call the model.

    Raises:
        SourceError: the file is damaged.
        ConfigError: there is no such family.
    """
    if not path.is_file():
        raise SourceError(f"{label}: it has no config.json, so its weights tell nothing.")
    family_of(read_object(path))


def look_at_facts(facts: Any, label: str) -> None:
    """Refuse a GGUF file of an architecture that is not supported.

    Args:
        facts: what the Hub tells of the GGUF files of a repository, if it does.
        label: what errors call the model.

    Raises:
        SourceError: no family has that architecture.
    """
    name = facts.get("architecture") if isinstance(facts, dict) else None
    if isinstance(name, str):
        demand_architecture(name, label)
