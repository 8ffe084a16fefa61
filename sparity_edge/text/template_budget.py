"""The budget of a chat template: what each operation costs before it is done.

One rule bounds time and memory: whatever an operation may copy, compare, hash or print is weighed
first and paid for out of one budget. The few operations whose result can be larger than what goes
in have their result predicted, and numbers given to padding and indenting are small.
"""

from __future__ import annotations

import re
from collections.abc import Collection, ItemsView, KeysView, Mapping, Sized, ValuesView
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import Namespace

MAX_DEPTH = 64  # of nested lists; deeper ones overflow the C stack when they are hashed
MAX_NUMBER = 10_000  # widths, precisions, indents and the like
MAX_BITS = 100_000  # of a product of whole numbers
TURN = 10  # what a turn of a loop or a call of a macro costs, at least


class Budget:
    """Units of work that are left; one unit is a character or an item that is looked at."""

    def __init__(self, units: int) -> None:
        self.left = units

    def pay(self, units: int) -> None:
        """Take `units` off; raises when there are none left."""
        self.left -= units
        if self.left < 0:
            raise TemplateRuntimeError("it loops for too long or makes too much text")

    def pay_for(self, *values: Any) -> None:
        """Pay for everything that these values hold."""
        for value in values:
            self.pay(weigh(value, self.left))


def weigh(value: Any, most: int) -> int:
    """Characters and items in a value, shared ones as often as they occur.

    Stops counting above `most`; raises on nesting deeper than `MAX_DEPTH`.
    """
    total = 1
    stack = [(value, 0)]
    while stack and total <= most:
        item, depth = stack.pop()
        if isinstance(item, str | range):
            total += len(item)
        elif isinstance(item, int):
            total += item.bit_length() >> 3
        elif (parts := _parts(item)) is not None:
            if depth >= MAX_DEPTH:
                raise TemplateRuntimeError(f"it nests values more than {MAX_DEPTH} deep")
            total += len(parts)
            stack.extend([(part, depth + 1) for part in parts])
    return total


def _parts(item: Any) -> Collection[Any] | None:
    """What a container holds; None for everything else."""
    if isinstance(item, list | tuple | set | frozenset | ValuesView | ItemsView | KeysView):
        return item
    if isinstance(item, Namespace):
        item = object.__getattribute__(item, "_Namespace__attrs")
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    return None


def growth(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], budget: Budget) -> int:
    """How much larger than its arguments a filter's or string method's result can be."""
    options = (*args[1:], *kwargs.values())
    numbers = [abs(value) for value in options if isinstance(value, int)]
    largest = max(numbers, default=0)
    # A number to be converted ("int", "abs" ...) is the first argument and may be any.
    if largest > MAX_NUMBER:
        raise TemplateRuntimeError(
            f"it gives {largest} to {name}; the most allowed is {MAX_NUMBER}"
        )
    text = args[0] if args and isinstance(args[0], str) else ""
    longest = max((len(value) for value in options if isinstance(value, str)), default=0)
    if name in ("format", "format_map"):
        return format_size(text, options, weigh(options, budget.left))
    if name == "replace":
        old = kwargs.get("old", args[1] if len(args) > 1 else None)
        plain = text and isinstance(old, str)
        return longest * (text.count(old) if plain else weigh(args[:1], budget.left))
    if name == "join":  # the separator is the string itself (method) or an argument (filter)
        return (len(text) + longest) * (1 + sum(length(value) for value in args))
    if name in ("indent", "expandtabs"):
        return (1 + text.count("\n") + text.count("\t")) * max(largest, longest, 8)
    if name == "tojson":
        return weigh(args[0], budget.left) * (6 + largest * MAX_DEPTH) if args else 0
    if name == "sum" and any(not isinstance(value, int | float | str) for value in options):
        raise TemplateRuntimeError("it adds up what are not numbers")
    return largest


def format_size(pattern: str, values: Any, weight: int) -> int:
    """The most characters that formatting can make: every field wide and with every value."""
    widths = [int(digits[:9]) for digits in re.findall(r"\d+", pattern)]
    # A width can also come from a value, by "*" or by a field within a field.
    if max(widths, default=0) > MAX_NUMBER or re.search(r"\*|\{[^{}]*\[|\{[^{}]+\{", pattern):
        raise TemplateRuntimeError("it pads a text too far")
    if isinstance(values, int | float):
        weight += 400  # digits of the largest float
    fields = pattern.count("{") + pattern.count("%")
    return len(pattern) + fields * (weight + sum(widths))


def product_size(left: Any, right: Any) -> int:
    """Length of `text * times` or `list * times`."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            return len(value) * max(times, 0)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    return 0


def check_power(base: Any, exponent: Any) -> None:
    """Refuse whole numbers whose power has too many digits."""
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * abs(exponent))


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TemplateRuntimeError("it computes too large a number")


def length(value: Any) -> int:
    """How many items a value has at its outside; 1 for what is not counted."""
    return len(value) if isinstance(value, Sized) else 1
