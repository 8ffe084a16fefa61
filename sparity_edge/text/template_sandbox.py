"""The sandbox in which a stranger's chat template runs, in the dialect of transformers.

Filters, calls, operators and printing pay out of the render's budget (`template_budget`) here,
where Jinja asks its environment; `template_meter` makes the template pay in all other places.
Filters and string methods that chat templates have no use for are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sparity_edge.text.template_budget import (
    TURN,
    Budget,
    check_power,
    format_size,
    growth,
    length,
    product_size,
    weigh,
)
from sparity_edge.text.template_meter import PAID, PAY, SLICED


def words(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


# Filters that look only at the outside of a value cost nothing by its size.
SHALLOW = words("length count first last default d items")
FILTERS = SHALLOW | words(
    "abs batch capitalize center dictsort e escape float groupby indent int join list lower map "
    "max min reject rejectattr replace reverse round safe select selectattr slice sort string "
    "striptags sum title tojson trim truncate unique upper wordcount"
)
SHALLOW_TESTS = words(
    "boolean callable defined divisibleby even false filter float integer iterable mapping none "
    "number odd sameas sequence string test true undefined"
)
STRING_METHODS = words(
    "capitalize casefold center count endswith expandtabs find format format_map index isalnum "
    "isalpha isascii isdecimal isdigit islower isnumeric isspace istitle isupper join ljust lower "
    "lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper zfill"
)


class Refused(TemplateRuntimeError):  # noqa: N818  # it is the template that refuses
    """The template itself called raise_exception."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of one render; everything it is asked to do is paid out of its budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    budget: Budget

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An arithmetic operator."""
        self.budget.pay_for(left, right)
        if operator == "*":
            self.budget.pay(product_size(left, right))
        elif operator == "**":
            check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            self.budget.pay(format_size(left, right, weigh(right, self.budget.left)))
        return super().call_binop(context, operator, left, right)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`; a tuple as a key is hashed, so it is paid for."""
        if not isinstance(argument, str | int):
            self.budget.pay_for(argument)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Which attributes and methods a template may use."""
        if isinstance(obj, str) and attr not in STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call of a function, method or macro."""
        budget = __self.budget
        arguments = {
            key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")
        }
        budget.pay(TURN)
        budget.pay_for(*args, *arguments.values())
        # Sandboxed str.format is a function that wraps the method.
        method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(method, BuiltinMethodType):
            owner = method.__self__
            budget.pay_for(owner)
            if isinstance(owner, str):
                budget.pay(growth(method.__name__, (owner, *args), arguments, budget))
        return super().call(__context, __obj, *args, **kwargs)


def bounded_environment(budget: Budget) -> BoundedEnvironment:
    """A fresh sandbox in the dialect of transformers, for one render."""
    environment = BoundedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # nothing is computed while compiling, where no budget is kept
        extensions=[loopcontrols, GenerationBlock],
        cache_size=0,
    )
    environment.budget = budget

    @pass_context
    def finalize(_: Context, value: Any) -> Any:
        budget.pay_for(value)
        return value

    def paid(value: Any) -> Any:
        budget.pay_for(value)
        return value

    def sliced(value: Any) -> Any:
        budget.pay(length(value))
        return value

    environment.finalize = finalize
    environment.filters["tojson"] = _tojson
    environment.filters = {
        name: _paid(environment.filters[name], name, budget, shallow=name in SHALLOW)
        for name in FILTERS
    }
    environment.filters |= {PAY: budget.pay, PAID: paid, SLICED: sliced}
    tests: dict[str, Any] = environment.tests
    environment.tests = {
        name: function if name in SHALLOW_TESTS else _paid(function, name, budget)
        for name, function in tests.items()
    }
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals |= {
        "namespace": PublicNamespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment


def _paid(
    function: Callable[..., Any], name: str, budget: Budget, *, shallow: bool = False
) -> Callable[..., Any]:
    """A filter or test that pays for its arguments and its result."""
    # Jinja puts its context in front of the arguments of functions with this mark.
    first = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)  # keeps the mark
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        budget.pay(1)
        if not shallow:
            given = args[first:]
            budget.pay_for(*given, *kwargs.values())
            budget.pay(growth(name, given, kwargs, budget))
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            result = list(_metered(result, budget))  # made now, while somebody pays for it
        elif isinstance(result, str) and not shallow:
            budget.pay(len(result))
        return result

    return wrapper


def _metered(items: Iterator[Any], budget: Budget) -> Iterator[Any]:
    for item in items:
        budget.pay(TURN)
        yield item


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: without the HTML escapes of Jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: Any) -> None:
    raise Refused(str(message))


def _strftime_now(pattern: str) -> str:
    if len(pattern) > 200:
        raise TemplateRuntimeError("its date format is too long")
    return datetime.now().strftime(pattern)


class PublicNamespace(Namespace):
    """`namespace()` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self=` is a legal name
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            PublicNamespace._check(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        PublicNamespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"namespace names begin with a letter, not {name!r}")


class GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's text for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
