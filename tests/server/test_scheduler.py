"""The scheduler: everybody gets the answer they would get alone, and nobody waits for nothing."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from eager_pace import EagerPace

from sparity_edge import Generator, SamplingParams, SparityError
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import sequence_of
from sparity_edge.generation.speculation.draft_model import DraftModel
from sparity_edge.generation.speculation.ngrams import NGrams
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.model.prefixes import parts
from sparity_edge.model.prefixes.parts import CHUNK, FEW
from sparity_edge.server.scheduler import BETWEEN, Scheduler
from sparity_edge.server.tickets import QueueFullError, Ticket

GREEDY = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
SEEDED = SamplingParams(temperature=1.5, seed=3, max_tokens=10, ignore_eos=True)
PROMPTS = [[5 + (7 * i + 3 * k) % 200 for k in range(n)] for i, n in enumerate((1, 7, 200, 40))]


class Client:
    """Submits one prompt and collects its steps."""

    def __init__(
        self, scheduler: Scheduler, prompt: Sequence[int], params: SamplingParams = GREEDY
    ) -> None:
        self.heard: queue.Queue[Step | BaseException] = queue.Queue()
        sequence = sequence_of(scheduler.loaded, prompt, params)
        self.ticket: Ticket = scheduler.submit(sequence, self.heard.put)

    def next(self) -> Step:
        step = self.heard.get(timeout=60)
        if isinstance(step, BaseException):
            raise step
        return step

    def ids(self) -> list[int]:
        found = [self.next()]
        while found[-1].finish_reason is None:
            found.append(self.next())
        return [step.token_id for step in found]


@pytest.mark.parametrize("params", [GREEDY, SEEDED])
def test_the_same_answers_as_alone(
    generator: Generator, scheduler: Scheduler, params: SamplingParams
) -> None:
    expected = []
    for prompt in PROMPTS:
        generator.loaded.model.kv_cache.trim(0)
        expected.append(list(generator.generate(prompt, params).token_ids))
    clients = [Client(scheduler, prompt, params) for prompt in PROMPTS * 3]
    assert [client.ids() for client in clients] == expected * 3


@pytest.mark.parametrize("many", [1, 4])
def test_guesses_change_no_answer(
    many: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)
    loaded = generator.twin().loaded
    loaded.pace, few = EagerPace(), dict.fromkeys((5, 6, 7, 8), 50.0)  # they soon repeat themselves
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, logit_bias=few)
    prompts, expected = [[5 + each, 7, 9] * 4 for each in range(many)], []
    generator.speculation = False
    for prompt in prompts:
        generator.loaded.model.kv_cache.trim(0)
        expected.append(list(generator.generate(prompt, params).token_ids))
    generator.speculation = True
    scheduler = Scheduler(loaded)
    clients = [Client(scheduler, prompt, params) for prompt in prompts]
    assert [client.ids() for client in clients] == expected
    counts = scheduler.counts
    assert 0 < counts.accepted_tokens < counts.drafted_tokens
    assert counts.decode_passes < many * 29
    scheduler.close()
    loaded.close()


def test_a_draft_model_changes_no_answer(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)
    monkeypatch.setattr(NGrams, "_find", lambda _: None)  # nothing is found in the text
    monkeypatch.setattr(DraftModel, "pace", lambda *_: EagerPace())
    monkeypatch.setattr(EagerPace, "worth", lambda *given: (given[-1], 100.0))  # guesses, gain
    own = checkpoint("llama_gqa")
    with Generator.load(own, dtype="f32", threads=2, draft=own) as made:
        params = SamplingParams(seed=3, max_tokens=30, ignore_eos=True)
        made.speculation = False
        expected = [list(made.generate(prompt, params).token_ids) for prompt in PROMPTS]
        made.speculation = True
        scheduler = Scheduler(made.loaded)
        assert [Client(scheduler, prompt, params).ids() for prompt in PROMPTS] == expected
        counts = scheduler.counts
        assert 0 < counts.accepted_tokens <= counts.drafted_tokens
        assert counts.decode_passes < len(PROMPTS) * 29
        scheduler.close()


def test_a_long_prompt_holds_nobody_up(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "CHUNK", 32)
    talking = Client(scheduler, [3, 4], SamplingParams(max_tokens=200, ignore_eos=True, seed=1))
    talking.next()
    before = talking.heard.qsize()
    reading = Client(scheduler, [9 + (11 * k) % 200 for k in range(96)])
    reading.next()
    # Passes for each chunk but the last, by its size.
    assert talking.heard.qsize() >= before + 2 * (BETWEEN * 32 // CHUNK)
    talking.ticket.cancel()
    reading.ids()


def test_whoever_goes_away_is_dropped(scheduler: Scheduler) -> None:
    dropped = scheduler.counts.cancelled
    client = Client(scheduler, [3, 4], SamplingParams(max_tokens=400, ignore_eos=True))
    client.next()
    client.ticket.cancel()
    assert len(Client(scheduler, [8, 9]).ids()) == GREEDY.max_tokens
    assert scheduler.counts.cancelled == dropped + 1
    heard = client.heard.qsize()
    assert len(Client(scheduler, [8, 9]).ids()) == GREEDY.max_tokens
    assert client.heard.qsize() == heard


def test_a_second_prompt_with_the_same_beginning_reads_the_rest_only(scheduler: Scheduler) -> None:
    prompt = [11 + (5 * k) % 190 for k in range(120)]
    Client(scheduler, prompt).ids()
    client = Client(scheduler, [*prompt, *range(4, 5 + FEW)])
    assert client.next().stats.cached_tokens == len(prompt)
    client.ids()


def test_prompts_that_come_together_share_what_they_begin_with(scheduler: Scheduler) -> None:
    begin = [17 + (13 * k) % 180 for k in range(100)]
    with scheduler.loaded.busy:  # the model is at work: they all come before the first is read
        clients = [Client(scheduler, [*begin, *range(4 + each, 30 + each)]) for each in range(4)]
    cached = [client.next().stats.cached_tokens for client in clients]
    assert cached == [0, *[len(begin)] * 3]
    for client in clients:
        client.ids()


def test_a_full_queue_is_told(generator: Generator) -> None:
    loaded = generator.twin(threads=1).loaded
    scheduler = Scheduler(loaded, most_waiting=2)
    loaded.busy.acquire()  # the model is at work
    try:
        clients = [Client(scheduler, [3, 4])]
        while not scheduler.running:  # none is let in behind it until its pass is over
            time.sleep(0.001)
        clients += [Client(scheduler, [3, 4]) for _ in range(2)]
        with pytest.raises(QueueFullError, match="2 requests wait already"):
            Client(scheduler, [3, 4])
    finally:
        loaded.busy.release()
    assert [len(client.ids()) for client in clients] == [GREEDY.max_tokens] * len(clients)
    assert scheduler.counts.refused == 1
    scheduler.close()
    loaded.close()


def test_closing_ends_what_is_under_way(generator: Generator) -> None:
    loaded = generator.twin(threads=1).loaded
    scheduler = Scheduler(loaded)
    client = Client(scheduler, [3, 4], SamplingParams(max_tokens=400, ignore_eos=True))
    client.next()
    scheduler.close()
    with pytest.raises(SparityError, match="shutting down"):
        client.ids()
    with pytest.raises(SparityError, match="shutting down"):
        Client(scheduler, [3, 4])
    loaded.close()


def test_a_pass_that_fails_ends_its_sequences_and_nothing_else(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = generator.twin(threads=1).loaded
    scheduler = Scheduler(loaded)
    with monkeypatch.context() as patch:

        def fails(*_: object, **__: object) -> None:
            raise MemoryError

        patch.setattr(loaded.model, "read", fails)
        with pytest.raises(MemoryError):
            Client(scheduler, [3, 4]).ids()
    assert len(Client(scheduler, [3, 4]).ids()) == GREEDY.max_tokens
    scheduler.close()
    loaded.close()
