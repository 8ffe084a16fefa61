"""Server-sent events that have a name, as Anthropic's Messages and OpenAI's Responses have them."""

from __future__ import annotations

import json
from typing import Any

Event = dict[str, Any]  # its "type" is its name in the stream


def named_event(event: Event) -> str:
    """An event as it goes over the wire.

    Args:
        event: whose type is its name.
    """
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
