"""From the names of LoRA adapters to a source of the model that they make."""

from __future__ import annotations

from collections.abc import Sequence

from converters.adapters.adapted import AdaptedSource
from converters.adapters.names import Adapter
from converters.adapters.peft import files_of, identity, read_adapter
from converters.sources.source import Source
from sparity_edge.model.families import family_of
from sparity_edge.progress import CallContext


def adapted(
    source: Source, adapters: Sequence[Adapter], label: str, context: CallContext
) -> AdaptedSource:
    """A source with LoRA adapters put to it; closed with what it is made of.

    Args:
        source: the model, open; it is closed where an adapter is refused.
        adapters: one or more of them, which are added up.
        label: what the user named.
        context: told what becomes of quantised weights.

    Raises:
        SourceError: an adapter is damaged, another model's, or asks for what is not supported.
        OptionError: the model cannot take one.
    """
    try:
        stored = family_of(source.config_json).stored
        read = [read_adapter(each, source.config, stored) for each in adapters]
        parts = ";".join(identity(each) for each in adapters)
        result = AdaptedSource(source, read, parts, label=label)
    except BaseException:
        source.close()
        raise
    result.files = (*source.files, *(path for each in adapters for path in files_of(each)))
    if (lora := result.config.lora) is not None:
        context.notify(
            f"{label}: {len(lora.ranks)} linears are quantised and keep their numbers; their LoRA "
            "weights stand beside them and are read in full, whatever a plan skips."
        )
    return result
