"""Scheduler: decodes what many clients ask for, together, the next tokens of each at a time.

Sequences join and leave between two steps. A long prompt is read a chunk at a time, between two of
which all others get their next tokens. Prompts that come while nobody waits for a next token are
read one after another, and their first tokens told when all are: so they decode together. One
thread works; anybody may submit. Knows nothing of HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from sparity_edge.errors import SparityError
from sparity_edge.generation.batch import MOST_TOGETHER
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.decode import speculation_of
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.generation.speculation.together import Together
from sparity_edge.model.prefixes.parts import CHUNK
from sparity_edge.plans.plan import SparsityPlan
from sparity_edge.server.dial.followed import Followed
from sparity_edge.server.embeddings.pooling import PooledTexts, PoolQueue
from sparity_edge.server.prefix_store import PrefixStore
from sparity_edge.server.tickets import ClosingError, Counts, Listener, QueueFullError, Ticket

MOST_WAITING = 64
# Passes for next tokens between two whole chunks of prompts: of 24 times between tokens one is long
# at most, so that the 95th percentile of them is not (bench/server/peers.py).
BETWEEN = 24
CLOSE_TIMEOUT = 60.0  # seconds that `close` waits for the step under way
Begun = tuple[Ticket, Speculation]  # a sequence whose prompt has been read


class Scheduler:
    """Decodes the sequences of one model.

    Args:
        loaded: the model; nobody else may use it meanwhile.
        most_waiting: sequences beyond those under way; more are refused.
        cache_bytes: of KV caches kept for prompts to come.
    """

    def __init__(
        self, loaded: LoadedModel, *, most_waiting: int = MOST_WAITING, cache_bytes: int = 1 << 30
    ) -> None:
        self.loaded = loaded
        self.followed = Followed.of(loaded.model.plan)  # by whoever asks for nothing else
        self.counts = Counts()
        self._together = Together(loaded)
        self.store = PrefixStore(loaded.model.new_kv_cache, cache_bytes)
        self._most_waiting = most_waiting
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []  # prompts being read among them
        self._begun: list[tuple[Ticket, Step]] = []  # first tokens that are not told yet
        self._rest = 0  # passes before the next chunk is read
        self._texts = PoolQueue(loaded)
        self._texts_next = False  # whether a chunk of them is read before one of a prompt
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Sequences that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences under way."""
        return len(self._running)

    def submit(
        self, sequence: DecodingSequence, listener: Listener, followed: Followed | None = None
    ) -> Ticket:
        """Have a sequence decoded.

        Args:
            sequence: not begun yet.
            listener: as `Ticket` has it.
            followed: what decoding skips; None: as the model did when the scheduler began.

        Returns:
            By which it can be cancelled.

        Raises:
            QueueFullError: too many wait already.
            ClosingError: the scheduler is closed.
        """
        ticket = Ticket(sequence, listener, followed or self.followed)
        with self._changed:
            self._demand_room(self.waiting)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def submit_texts(self, texts: PooledTexts) -> None:
        """Have texts made into vectors, a chunk at a time between the steps of sequences.

        Args:
            texts: none read yet.

        Raises:
            QueueFullError: too many such requests wait already.
            ClosingError: the scheduler is closed.
        """
        with self._changed:
            self._demand_room(len(self._texts))
            self._texts.add(texts)
            self._changed.notify()

    def _demand_room(self, waiting: int) -> None:
        """Count a request, or refuse it."""
        if self._closing:
            raise ClosingError
        if waiting >= self._most_waiting:
            self.counts.refused += 1
            raise QueueFullError(
                f"{self._most_waiting} requests wait already; try again in a while."
            )
        self.counts.requests += 1

    def close(self) -> None:
        """End all sequences with an error, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT)

    def _work(self) -> None:
        while self._wait():
            started = time.perf_counter()
            try:
                self._admit()
                self._read()
                self._advance()
                if not self._running:
                    self.store.prepare()
            except Exception as error:
                # Of all that are under way: a pass is of them all, and none can go on behind it.
                self._fail(error)
            self.counts.busy_seconds += time.perf_counter() - started
        self._fail(ClosingError())

    def _wait(self) -> bool:
        """Sleep until there is something to do; False: close."""
        with self._changed:
            while not (self._closing or self._waiting or self._running or self._texts):
                self._changed.wait()
            return not self._closing

    def _admit(self) -> None:
        """Drop what is over, and let waiting sequences in."""
        with self._changed:
            self._drop()
            while self._waiting and len(self._running) < MOST_TOGETHER:
                self._running.append(self._waiting.popleft())

    def _drop(self) -> None:
        """Forget those that are over or whose client has gone."""
        gone = [each for each in (*self._running, *self._waiting) if each.cancelled]
        self.counts.cancelled += sum(each.sequence.finish_reason is None for each in gone)
        self._waiting = deque(each for each in self._waiting if not each.cancelled)
        over = [each for each in self._running if each.cancelled or each.sequence.finish_reason]
        for ticket in over:
            if ticket.cache is not None:
                self.loaded.model.release(ticket.cache)
                self.store.keep(ticket.cache)
            ticket.let_go()
        self._running = [each for each in self._running if each not in over]

    def _read(self) -> None:
        """One chunk; where nobody waits for a next token, short prompts one after another."""
        waiting = any(each.decodes for each in self._running)
        if waiting and self._rest > 0:
            self._rest -= 1
            return
        self._read_by_turns()
        while not waiting and 0 < len(self._begun) < MOST_TOGETHER:
            self._admit()
            following = self._unread()
            if following is None or following.unread > CHUNK:
                break
            self._read_by_turns()
        for begun in self._begun:
            self._tell(*begun)
        for ticket, _ in self._begun:
            if ticket.cache is not None:
                self.loaded.keep(ticket.cache)
        self._begun.clear()

    def _read_by_turns(self) -> None:
        """A chunk of a prompt, or of texts to be made into vectors; by turns where both wait."""
        if not (self._texts and self._texts_next) and self._read_a_chunk():
            self._texts_next = True
        elif self._texts:
            self.counts.embedded_tokens += self._texts.read_a_chunk()
            self._rest = BETWEEN
            self._texts_next = False

    def _unread(self) -> Ticket | None:
        """Whose prompt is read next, with what is at hand of it; None: all have been read."""
        ticket = next((each for each in self._running if not each.sequence.generated), None)
        # Not before its turn: the one before it may begin like it.
        if ticket is not None and ticket.cache is None:
            busy = [each.cache for each in self._running if each.cache is not None]
            ticket.cache = self.store.begin(ticket.sequence.ids, busy)
            self.counts.prompt_tokens += len(ticket.sequence.ids)
        return ticket

    def _read_a_chunk(self) -> bool:
        """Of the prompt that came first among those not read yet; False: there is none."""
        ticket = self._unread()
        if ticket is None or ticket.cache is None:
            return False
        loaded, sequence, cache = self.loaded, ticket.sequence, ticket.cache
        with loaded.busy:
            started = time.perf_counter()
            try:
                loaded.model.set_plan(ticket.followed.plan)
            except SparityError as error:
                ticket.fail(error)
                return True
            if not ticket.begun:
                ticket.begun = True
                loaded.take_over(cache, sequence.ids)
                sequence.meter.cached = len(cache)
                self.counts.cached_tokens += len(cache)
            rest = sequence.ids[len(cache) :]
            logits = loaded.model.read(rest, loaded.sparse_prefill, cache, passes=1)
            ticket.reading += time.perf_counter() - started
            self._rest = BETWEEN * (len(rest) - ticket.unread) // CHUNK
            if ticket.unread:
                return True
            try:
                chosen = sequence.choose(logits)
                active, densities = loaded.model.active_weight_fraction, loaded.model.densities
                sequence.meter.add(ticket.reading, active, densities)
                step = sequence.take(*chosen)
            except SparityError as error:
                ticket.fail(error)
                return True
        ticket.speculation = speculation_of(loaded, sequence, cache)
        self._begun.append((ticket, step))
        return True

    def _advance(self) -> None:
        """The next token of each sequence whose prompt has been read, or more of them."""
        ready = [
            (each, each.speculation)
            for each in self._running
            if each.speculation is not None and not each.sequence.finish_reason
        ]
        # Largest first, so that those that come find a recording for as much room.
        ready.sort(key=lambda each: -each[1].cache.capacity)
        followed = {id(each.followed.plan): each.followed.plan for each, _ in ready}
        for key, plan in followed.items():
            group = [each for each in ready if id(each[0].followed.plan) == key]
            self._decode(group, plan)

    def _decode(self, ready: Sequence[Begun], plan: SparsityPlan | None) -> None:
        """A pass over some sequences of one plan."""
        with self.loaded.busy, self.counts.a_pass([ticket.sequence.meter for ticket, _ in ready]):
            self.loaded.model.set_plan(plan)
            found = self._together.steps([speculation for _, speculation in ready])
        for (ticket, speculation), steps in zip(ready, found, strict=True):
            for step in steps:
                self._tell(ticket, step)
            if speculation.error is not None:
                ticket.fail(speculation.error)

    def _tell(self, ticket: Ticket, step: Step) -> None:
        self.counts.generated_tokens += 1
        if not ticket.cancelled:
            ticket.listener(step)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            tickets = [*self._running, *(self._waiting if self._closing else ())]
            self._running.clear()
            self._begun.clear()
            if self._closing:
                self._waiting.clear()
                self._texts.fail(error)
        for ticket in tickets:
            if not ticket.cancelled:
                ticket.listener(error)
