"""Schemas and grammars that are made to take a process down, or its time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparity_edge import OptionError
from sparity_edge.generation.constraint import constraints as module
from sparity_edge.generation.constraint import deep_stack, trial
from sparity_edge.generation.constraint.constraints import Constraints
from sparity_edge.generation.constraint.grammars import STACK, grammar_of
from sparity_edge.generation.constraint.trial import needs_trial
from sparity_edge.text.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="the extra [server] is not installed")

LETTER = {"type": "string", "maxLength": 1}


@pytest.fixture(scope="module")
def constraints(checkpoint: Callable[[str], Path]) -> Constraints:
    tokenizer = Tokenizer.from_folder(checkpoint("llama_gqa"))
    return Constraints(tokenizer, tokenizer.vocab_size, tokenizer.eos_token_ids)


def chain(levels: int, wrap: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A schema of so many definitions, each of which stands on the next one."""
    known = {format(at, "x"): wrap({"$ref": f"#/$defs/{at + 1:x}"}) for at in range(levels)}
    return {"$defs": {**known, format(levels, "x"): LETTER}, "$ref": "#/$defs/0"}


def test_grammars_are_read_on_a_deep_stack(
    constraints: Constraints, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def on_deep_stack(work: Callable[[], Any], size: int) -> Any:
        sizes.append(size)
        return deep_stack.on_deep_stack(work, size)

    monkeypatch.setattr(module, "on_deep_stack", on_deep_stack)
    state = constraints.of("json_schema", chain(5, lambda deeper: {"anyOf": [deeper]})).begin()
    assert state.forced() or state.mask().any()
    assert sizes == [STACK]


def test_long_schemas_are_refused(constraints: Constraints) -> None:
    with pytest.raises(OptionError, match="bytes"):
        constraints.of("json_schema", {"enum": ["x" * (1 << 16)]})


def test_references_without_an_end_are_refused(constraints: Constraints) -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    with pytest.raises(OptionError, match="schema cannot be followed"):
        constraints.of("json_schema", endless)


def test_nesting_is_bounded(constraints: Constraints) -> None:
    schema: dict[str, Any] = LETTER
    for _ in range(3000):
        schema = {"items": schema}
    for each in (schema, '{"items":' * 3000 + "{}" + "}" * 3000):
        with pytest.raises(OptionError, match="nested"):
            constraints.of("json_schema", each)


def test_what_takes_long_to_read_is_refused(
    constraints: Constraints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_WAIT", 0.001)
    with pytest.raises(OptionError, match="schema takes more than 2 seconds to read"):
        constraints.of("json_schema", {"allOf": [LETTER, {"minLength": 1}]})
    constraints.of("json_schema", LETTER)


def test_only_what_may_multiply_is_tried_first() -> None:
    def tried(schema: dict[str, Any]) -> bool:
        return needs_trial(grammar_of("json_schema", schema, "schema"))

    maybe = {"anyOf": [LETTER, {"type": "null"}], "default": None, "title": "Maybe"}
    assert not tried({"type": "object", "properties": {"a": maybe, "b": LETTER}})
    assert not tried({"$ref": "#/$defs/a", "$defs": {"a": LETTER}})
    assert tried({"allOf": [LETTER]})
    assert tried({"anyOf": [LETTER], "minLength": 1})
    assert tried({"enum": ["x" * 10_000]})
    assert tried({"prefixItems": [{"pattern": "a"}] * 20})
