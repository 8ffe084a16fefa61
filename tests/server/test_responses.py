"""OpenAI's Responses: its own client is understood; what is stored elsewhere is refused here."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from serving_tiny import NAME, Ask

from sparity_edge import Generator, SamplingParams
from sparity_edge.errors import SparityError
from sparity_edge.server.scheduler import Scheduler

openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
PATH = "/v1/responses"
TALK = [{"role": "user", "content": "hello there"}]
GREEDY = {"temperature": 0, "ignore_eos": True}
FORM = {"type": "json_schema", "name": "x"}
ASKED = {
    "model": NAME,
    "input": "hello there",
    "max_output_tokens": 8,
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}
KIND = "be kind " * 5 + "to all"  # long enough to be kept


def test_a_response_of_the_real_client(client: Any, generator: Generator) -> None:
    params = SamplingParams(max_tokens=8, **GREEDY)
    expected = generator.chat([{"role": "system", "content": KIND}, *TALK], params)
    first = client.responses.create(**ASKED, instructions=KIND, store=False)
    assert first.output_text == expected.text
    assert (first.status, first.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert first.usage.input_tokens == expected.stats.prompt_tokens
    assert (first.usage.output_tokens, first.store) == (8, False)
    again = [{"role": "developer", "content": KIND}, *TALK]
    asked = {**ASKED, "input": again}
    second = client.responses.create(**asked, metadata={"a": "b"})
    assert (second.output_text, second.metadata) == (expected.text, {"a": "b"})
    assert second.usage.input_tokens_details.cached_tokens > 0
    talk = [*again, *(each.model_dump() for each in first.output), *TALK]
    assert client.responses.create(**{**ASKED, "input": talk}).output_text


def test_a_streamed_response_is_the_same_text(client: Any) -> None:
    whole = client.responses.create(**ASKED)
    events = list(client.responses.create(**ASKED, stream=True))
    kinds = [each.type.removeprefix("response.") for each in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    last = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert kinds[-4:] == last
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert "".join(each.delta for each in events[4:-4]) == whole.output_text
    assert events[-1].response.usage.output_tokens == 8


def test_the_streaming_helper_ends_with_the_whole_response(client: Any) -> None:
    asked = {**ASKED, "extra_body": {}, "max_output_tokens": 200}
    with client.responses.stream(**asked) as stream:
        deltas = [each.delta for each in stream if each.type == "response.output_text.delta"]
        last = stream.get_final_response()
    assert last.status == "completed"
    assert "".join(deltas) == last.output_text


def test_logprobs_are_those_of_the_generator(client: Any, generator: Generator) -> None:
    params = SamplingParams(max_tokens=8, top_logprobs=2, **GREEDY)
    expected = generator.chat(TALK, params)
    asked = {**ASKED, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    found = client.responses.create(**asked).output[0].content[0].logprobs
    assert [each.logprob for each in found] == pytest.approx(list(expected.logprobs))
    assert {len(each.top_logprobs) for each in found} == {2}
    streamed = client.responses.create(**asked, stream=True)
    parts = [each.logprobs for each in streamed if each.type == "response.output_text.delta"]
    assert [part.logprob for each in parts for part in each] == [each.logprob for each in found]


def test_a_text_that_follows_a_schema(client: Any) -> None:
    schema = {"type": "object", "properties": {"level": {"enum": [1, 2]}}}
    schema |= {"required": ["level"], "additionalProperties": False}
    form = {**FORM, "schema": schema, "strict": True}
    answer = client.responses.create(
        model=NAME, input="hello", max_output_tokens=60, text={"format": form}
    )
    assert json.loads(answer.output_text)["level"] in (1, 2)
    assert answer.text.format.schema_ == schema
    assert client.responses.with_raw_response.create(**ASKED).headers["X-Sparity-Plan"]


def test_a_stream_that_fails_says_so(
    ask: Ask, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise SparityError("Too hot; cool it.")

    monkeypatch.setattr(scheduler, "_read_a_chunk", lambda: fail(None))
    status, events = ask(PATH, {"input": "a", "stream": True})
    last = json.loads(events.strip().rpartition("data: ")[2])
    assert (status, last["type"], last["response"]["status"]) == (200, "response.failed", "failed")
    assert last["response"]["error"]["message"] == "Too hot; cool it."


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"store": True}, "store=true is refused, for nothing is stored"),
        ({"previous_response_id": "resp_1"}, "previous_response_id='resp_1' is refused"),
        ({"tools": [{"type": "web_search"}]}, "tools=.*web_search.* is not served"),
        ({"top_logprobs": 2}, "top_logprobs=2 needs include"),
        ({"include": ["file_search_call.results"]}, "include.0="),
        ({"input": []}, "input="),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type="),
        ({"text": {"format": {"type": "xml"}}}, "text.format="),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 3}}}},
            "schema",
        ),
        ({"plan": "none"}, "say how many with sparsity"),
        ({"reasoning": {"effort": "high"}}, 'reasoning.effort="high"'),
        ({"background": True}, "background=true"),
        ({"max_output_tokens": 0}, "max_output_tokens=0"),
    ],
)
def test_what_cannot_be_honoured_is_a_400(ask: Ask, body: dict[str, Any], sentence: str) -> None:
    status, answer = ask(PATH, {"input": "hello", **body})
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert re.search(sentence, answer["error"]["message"])
