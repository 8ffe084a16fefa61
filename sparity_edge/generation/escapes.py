"""Escapes in text that is typed: \\n, \\t and the like, as in C and Python.

For the command line and the chat, where a line feed cannot be typed; texts from Python and from
files are taken as they are. What is no known escape stays as it stands, backslash included.
"""

from __future__ import annotations

import re

PLAIN = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(
    r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[nrt\\\"'])"  # all else stays
)
_WRITTEN = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def unescape(text: str) -> str:
    """The text that escapes stand for; a code beyond Unicode, or half of a pair, stays as it is."""
    return _ESCAPE.sub(_meaning, text)


def escape(text: str) -> str:
    """The text as it is typed: `unescape` of it gives the text."""
    return "".join(_WRITTEN.get(c) or (c if c.isprintable() else _code(c)) for c in text)


def _meaning(match: re.Match[str]) -> str:
    name = match[1]
    if name in PLAIN:
        return PLAIN[name]
    code = int(name[1:], 16)
    return match[0] if 0xD800 <= code < 0xE000 or code > 0x10FFFF else chr(code)


def _code(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code < 0xE000:
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
