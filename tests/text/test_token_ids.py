"""Token ids from outside: whole numbers that are rows of the embedding, or one sentence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, processors

from sparity_edge.errors import OptionError, SourceError
from sparity_edge.text.token_ids import checked_ids
from sparity_edge.text.tokenizer import Tokenizer

ROWS = 10


def tokenizer(vocabulary: dict[str, int], **more: Any) -> Tokenizer:
    content = json.loads(Backend(models.WordLevel({"a": 0}, unk_token="a")).to_str())
    content["model"]["vocab"] = vocabulary  # the library would leave out what lies far apart
    return Tokenizer.from_files({"tokenizer.json": json.dumps({**content, **more}).encode()})


def test_whole_numbers_of_any_make_are_ids() -> None:
    given = [0, np.int32(3), np.uint8(4), np.array(5), ROWS - 1]
    assert checked_ids(given, ROWS) == [0, 3, 4, 5, 9]
    assert {type(each) for each in checked_ids(given, ROWS)} == {int}


@pytest.mark.parametrize(
    "given",
    [
        *(True, np.True_, 1.0, np.float32(1), "1", None, [1], np.array([1, 2])),
        *(-1, ROWS, 2**70, np.int64(-1), np.uint64(2**64 - 1), 10**5000, -(10**5000)),
    ],
    ids=lambda given: repr(type(given)),
)
def test_anything_else_is_refused_in_a_short_sentence(given: object) -> None:
    with pytest.raises(OptionError) as refused:
        checked_ids([1, given], ROWS)
    assert len(str(refused.value)) < 200


def test_a_vocabulary_may_be_smaller_than_the_embedding() -> None:
    tokenizer({"a": 0, "b": ROWS - 1}).demand_rows(ROWS)
    tokenizer({"a": 0}).demand_rows(ROWS)


def test_an_id_beyond_the_embedding_is_refused_with_both_numbers() -> None:
    with pytest.raises(SourceError, match=r"'b' the id 10, .* 10 ids from 0 to 9"):
        tokenizer({"a": 0, "b": ROWS}).demand_rows(ROWS)
    with pytest.raises(SourceError, match="the id 4294967295"):
        tokenizer({"a": 0, "b": 2**32 - 1}).demand_rows(ROWS)


def test_an_added_token_beyond_the_embedding_is_refused() -> None:
    vocabulary = {chr(97 + number): number for number in range(ROWS)}
    token = {
        "id": ROWS, "content": "<end>", "special": True, "normalized": False,
        "single_word": False, "lstrip": False, "rstrip": False,
    }  # fmt: skip
    with pytest.raises(SourceError, match="'<end>' the id 10"):
        tokenizer(vocabulary, added_tokens=[token]).demand_rows(ROWS)


def test_ids_that_only_the_template_of_the_tokenizer_knows_are_refused() -> None:
    backend = Backend(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 77)])
    content = {"tokenizer.json": backend.to_str().encode()}
    with pytest.raises(SourceError, match="around every text the id 77"):
        Tokenizer.from_files(content).demand_rows(ROWS)
