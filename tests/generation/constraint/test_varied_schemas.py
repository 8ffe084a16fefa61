"""25 schemas of all sorts: whatever the logits are, what is drawn is valid by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import SamplingParams
from sparity_edge.generation.constraint.constraints import Constraints
from sparity_edge.generation.sampler import Sampler
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.text.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="the extra [server] is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="the extra [test] is not installed")

ROOT = Path(__file__).resolve().parents[3]
VARIED = json.loads((ROOT / "bench" / "server" / "varied.json").read_text(encoding="utf-8"))
PADDED = 16  # rows of the LM head that no token belongs to
DRAWS = 3


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.from_folder(checkpoint("llama_gqa"))


@pytest.fixture(scope="module")
def constraints(tokenizer: Tokenizer) -> Constraints:
    return Constraints(tokenizer, tokenizer.vocab_size + PADDED, tokenizer.eos_token_ids)


@pytest.mark.parametrize("case", VARIED, ids=lambda case: str(case["name"]))
def test_drawn_at_random_they_are_valid(
    tokenizer: Tokenizer, constraints: Constraints, case: dict[str, Any]
) -> None:
    constraint = constraints.of("json_schema", case["schema"])
    random = np.random.default_rng(len(case["name"]))
    size = tokenizer.vocab_size + PADDED
    for seed in range(DRAWS):
        params = SamplingParams(temperature=1, top_k=0, top_p=1, seed=seed)
        sampler = Sampler(params, size)
        ends = tokenizer.eos_token_ids
        sequence = DecodingSequence([1], params, tokenizer, sampler, ends, 2000, constraint)
        text = ""
        while sequence.finish_reason is None:
            logits = random.standard_normal(size).astype(np.float32)
            text += sequence.take(*sequence.choose(logits)).text
        assert sequence.finish_reason == "stop", text
        jsonschema.validate(
            json.loads(text), case["schema"], format_checker=jsonschema.FormatChecker()
        )
