"""What the scripts about the server make of bytes that arrive, and of rounds."""

from __future__ import annotations

from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PARTS = (
    HEAD + b'22\r\ndata: {"choices": [{"text": "a"}]}\n\n\r\n',
    b'22\r\ndata: {"choices": [{"text": "b"}]}\n',
    b"\n\r\n",
    b'22\r\ndata: {"choices": [], "usage": {}}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n',
)


def test_events_have_the_times_of_their_ends(bench: Any) -> None:
    answer = bench("server.client").Answer(1.0)
    for when, part in enumerate(PARTS, 2):
        answer.raw += part
        answer.marks.append((float(when), len(answer.raw)))
    assert (answer.status, answer.ended) == (200, 5.0)
    assert answer.token_times() == [2.0, 3.0]
    assert answer.text() == "ab"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert bench("server.load")._text("streamed", answer) == "ab"
    answer.raw = answer.raw[:-30]
    assert bench("server.load")._text("streamed", answer) is None


def test_bodies_are_read_without_the_frames_of_chunks(bench: Any) -> None:
    answer = bench("server.client").Answer(
        0.0, raw=bytearray(HEAD + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    )
    assert answer.body() == b"abcde"


def test_prompts_never_begin_alike(bench: Any) -> None:
    prompts = bench("server.sides").Prompts(list(range(100)), 30)
    taken = prompts.take(9)
    assert len({tuple(each[:4]) for each in taken}) == 9
    assert {len(each) for each in taken} == {30}


def test_rounds_are_compared_side_by_side(bench: Any) -> None:
    peers = bench("server.peers")
    rounds = [
        {"ours": {"tokens_s": 4.0, "gap_p95": 1.0}, "llama.cpp": {"tokens_s": 2.0, "gap_p95": 2.0}}
    ] * 3
    ratios = peers.compared(rounds)["ratios"]
    assert (ratios["tokens_s"]["median"], ratios["gap_p95"]["median"]) == (2.0, 0.5)
