"""Damage to files, drawn at random: bits, spans and lengths of bytes; values and keys of JSON.

All of it follows from the `random.Random` that is passed in, so that a case can be made again from
its number. Knows no file format beyond JSON.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, -(1 << 31),
    (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**40, 0.0, -0.0, 0.5, 1e-300, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"), "", " ", "0", "1", "none", "\0", "\ud800", "\u202e",
    "\n", "../../x", "/", "a" * 300, "a" * 10_000, "{{", "{% for x in range(9**9) %}{% endfor %}",
    "(a+)+$", [], {}, [[]], [None], [0], [-1], [1 << 40], ["a"], [{}], {"": None}, {"a": {"b": []}},
)  # fmt: skip
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


def damaged_bytes(data: bytes, random: Random, head: int | None = None) -> bytes:
    """Some bytes of `data` changed, added or taken away, once to four times.

    Args:
        data: the file.
        random: what decides.
        head: most damage is done within that many bytes from the start; None: anywhere.
    """
    for _ in range(random.choice((1, 1, 2, 4))):
        within = head is not None and random.random() < 0.8
        end = min(head or 0, len(data)) if within else len(data)
        data = random.choice(_BYTES)(data, random.randrange(end + 1), random)
    return data


def damaged_json(text: bytes, random: Random) -> bytes:
    """A JSON text with values, keys or items changed, or, one time in five, with damaged bytes."""
    if random.random() < 0.2:
        return damaged_bytes(text, random)
    value = json.loads(text)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _damaged_value(value, random)
    return json.dumps(value).encode()


def damaged_text(text: bytes, random: Random) -> bytes:
    """A text with lines doubled, swapped or dropped, or with damaged bytes."""
    lines = text.splitlines(keepends=True)
    if len(lines) < 2 or random.random() < 0.6:
        return damaged_bytes(text, random)
    at = random.randrange(len(lines))
    other = random.choice(lines)
    lines[at : at + random.randrange(2)] = random.choice(([], [other], [other] * 50))
    return b"".join(lines)


def _damaged_value(root: Any, random: Random) -> Any:
    """One place of a JSON value changed, near the root as well as deep inside."""
    holder, key = None, None
    here = root
    while isinstance(here, dict | list) and here and (holder is None or random.random() < 0.7):
        keys = list(here) if isinstance(here, dict) else range(len(here))
        holder, key = here, random.choice(keys)
        here = holder[key]
    if holder is None:
        return copy.deepcopy(random.choice(NASTY))
    _change(holder, key, random)
    return root


def _change(holder: Any, key: Any, random: Random) -> None:
    value, kind = holder[key], random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice(("", key + "x", "\ud800", "a" * 500))] = holder.pop(key)
    elif kind == 1:
        holder.insert(key, value)
    elif kind == 2 and isinstance(value, int | float) and not isinstance(value, bool):
        changed = (value + 1, value - 1, -value, value * 2, float(value), str(value), value + 0.5)
        holder[key] = random.choice(changed)
    elif kind == 3:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        holder[key] = copy.deepcopy(holder[random.choice(keys)])
    elif kind == 4:
        depth = random.choice((3, 50, 400))
        holder[key] = json.loads("[" * depth + "]" * depth)
    else:
        holder[key] = copy.deepcopy(random.choice(NASTY))


def _flip(data: bytes, at: int, random: Random) -> bytes:
    if at >= len(data):
        return data + b"\0"
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def _noise(data: bytes, at: int, random: Random) -> bytes:
    size = random.choice((1, 4, 8, 64))
    return data[:at] + random.randbytes(size) + data[at + size :]


def _word(data: bytes, at: int, random: Random) -> bytes:
    size = random.choice((1, 2, 4, 8))
    at -= at % size
    value = random.choice(WORDS) & ((1 << 8 * size) - 1)
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _cut(data: bytes, at: int, _: Random) -> bytes:
    return data[:at]


def _drop(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + data[at + random.choice((1, 8, 100, 4096)) :]


def _insert(data: bytes, at: int, random: Random) -> bytes:
    return data[:at] + random.randbytes(random.choice((1, 8, 100))) + data[at:]


def _double(data: bytes, at: int, random: Random) -> bytes:
    end = at + random.choice((1, 8, 100, 4096))
    return data[:end] + data[at:end] + data[end:]


def _fill(data: bytes, at: int, random: Random) -> bytes:
    size = random.choice((1, 8, 100, 4096))
    kept = len(data[at : at + size])
    return data[:at] + random.choice((b"\0", b"\xff", b" ")) * kept + data[at + size :]


Change = Callable[[bytes, int, Random], bytes]
_BYTES: tuple[Change, ...] = (_flip, _flip, _noise, _word, _word, _cut, _drop, _insert, _double,
                              _fill)  # fmt: skip
