"""Constraints of one model: its vocabulary as llguidance knows it, and grammars compiled for it.

The vocabulary is read when the first constraint is asked for, which takes a third of a second with
49,152 tokens, and kept. Limits keep what a stranger writes from taking time or memory without end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sparity_edge.errors import OptionError, library_words
from sparity_edge.generation.constraint.constraint import Constraint
from sparity_edge.generation.constraint.deep_stack import on_deep_stack
from sparity_edge.generation.constraint.grammars import STACK, Kind, grammar_of
from sparity_edge.generation.constraint.trial import needs_trial, try_out

if TYPE_CHECKING:
    from sparity_edge.text.tokenizer import Tokenizer

MOST_KEPT = 16  # compiled grammars, those that were asked for last
# What a grammar may cost, in llguidance's units; the remarks are its own.
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,  # about 20 ms of building its regexes
    "step_lexer_fuel": 200_000,  # about 14 ms of a token
    "step_max_items": 50_000,  # about 3 ms of a token
    "max_lexer_states": 25_000,  # of 1 to 2 KB, for every sequence
    "max_grammar_size": 20_000,  # symbols; a property of an object takes eight
    "verbose_errors": False,
}
# Grammars may be ambiguous in more ways than schemas, and cost by the square of their size.
GRAMMAR_LIMITS = LIMITS | {"max_grammar_size": 2_000, "max_items_in_row": 500}
FIELDS: dict[Kind, str] = {
    "json_object": "schema",
    "json_schema": "schema",
    "regex": "regex",
    "grammar": "grammar",
}


class Constraints:
    """Makes constraints for the texts of one model.

    Args:
        tokenizer: of the model.
        vocab_size: of its logits, which may be more than the tokenizer has.
        end_ids: tokens that end a text.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._end_ids = sorted(end_ids)
        self._vocabulary: Any = None
        self._kept: OrderedDict[str, Constraint] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, kind: Kind, content: object = None, field: str | None = None) -> Constraint:
        """What a text must follow.

        Args:
            kind: what `content` is: "json_schema" (an object, or its JSON), "json_object" (nothing
                is given), "regex", or "grammar" (Lark as llguidance reads it, or its JSON form).
            content: to follow.
            field: what the user calls it, for errors; None: as `Generator.stream` does.

        Raises:
            OptionError: it cannot be followed, or llguidance is not installed.
        """
        field = field or FIELDS[kind]
        try:
            import llguidance  # noqa: F401
        except ImportError:
            raise OptionError(
                f"{field} needs llguidance, which is not installed: pip install '.[server]'."
            ) from None
        grammar = grammar_of(kind, content, field)
        limits = GRAMMAR_LIMITS if kind == "grammar" else LIMITS
        with self._lock:
            found = self._kept.get(grammar)
            if found is not None:
                self._kept.move_to_end(grammar)
                return found
            vocabulary = self._read_vocabulary(field)
        if kind == "grammar" or (kind == "json_schema" and needs_trial(grammar)):
            try_out(grammar, limits, STACK, field)
        found = on_deep_stack(lambda: self._compiled(vocabulary, grammar, field, limits), STACK)
        with self._lock:
            self._kept[grammar] = found
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found

    def one_of(self, schema: object, regex: object, grammar: object) -> Constraint | None:
        """What a text must follow; arguments as for `Generator.stream`, None: nothing.

        Raises:
            OptionError: it cannot be followed, or several were given.
        """
        given: dict[Kind, object] = {"json_schema": schema, "regex": regex, "grammar": grammar}
        found = [(kind, each) for kind, each in given.items() if each is not None]
        if len(found) > 1:
            names = " and ".join(FIELDS[kind] for kind, _ in found)
            raise OptionError(f"{names} were given together; give one of them.")
        return self.of(*found[0]) if found else None

    def _read_vocabulary(self, field: str) -> Any:
        """The tokenizer as llguidance has it."""
        if self._vocabulary is None:
            from llguidance import LLTokenizer

            if not self._end_ids:
                raise OptionError(
                    f"{field} cannot be followed by this model: it names no token that ends a text."
                )
            try:
                content = self._tokenizer.to_json()
                self._vocabulary = LLTokenizer(content, self._vocab_size, self._end_ids)
            except ValueError as error:
                raise OptionError(
                    f"{field} cannot be followed with this model's tokenizer: "
                    f"{library_words(error)}."
                ) from None
        return self._vocabulary

    def _compiled(
        self, vocabulary: Any, grammar: str, field: str, limits: dict[str, Any]
    ) -> Constraint:
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=LLParserLimits(**limits))
        made = Constraint(matcher, self._vocab_size, field)
        made.demand_possible()
        return made
