"""Continuous batching: at every step requests come in, prompts are read, and all rows get a token.

A step admits what fits, feeds one chunk of prompts, and decodes one token of every running row, in
one forward whatever their methods, adapters, k and decoding settings (iteration-level scheduling,
Orca; S-LoRA, arXiv 2311.03285). It has no threads of its own: whoever calls `step` runs the model.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ramole_core.engine.forward import Forwards
from ramole_core.engine.kv import KvCache
from ramole_core.engine.request import Generation, Request, Step
from ramole_core.engine.ticket import Chosen, Ticket, new_ticket
from ramole_core.engine.waiting import check_place, in_turn
from ramole_core.errors import RamoleError
from ramole_core.layers import Layout, Line

Event = tuple[Ticket, Step | Generation | RamoleError]
ALONE = 4
"""A step may read this many chunks of prompts where no row waits for its next token."""


@dataclass(frozen=True)
class Sizes:
    """How much may happen at the same time."""

    max_batch: int = 32
    """Rows that run."""
    max_queue: int = 128
    """Requests that wait; one more is `Busy`."""
    prefill_chunk: int = 256
    """Prompt tokens that a step reads while rows decode."""


@dataclass
class Stats:
    """What the scheduler has done since it began; seconds are of the forwards and around them."""

    admitted: int = 0
    finished: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    prefill_forwards: int = 0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    decode_forwards: int = 0


class Scheduler:
    """The queue and the running batch. `submit`, `cancel` and `place` may be called from any
    thread; `step` by one at a time."""

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        kv: KvCache,
        forwards: Forwards,
        eos: frozenset[int],
        sizes: Sizes,
        admit: Callable[[Ticket], Line | None],
        release: Callable[[Line], None],
    ):
        """`admit` pins a request's adapters and gives its line, None where they do not fit now;
        `release` gives them back."""
        self.sizes = sizes
        self._tokenizer, self._layout, self._eos = tokenizer, layout, eos
        self._kv, self._forwards = kv, forwards
        self._admit, self._release = admit, release
        self._door = threading.Lock()
        self._waiting: list[Ticket] = []
        self._reading: list[Ticket] = []
        self._rows: list[Ticket] = []
        self._number = 0
        self._stats = Stats()

    # --- the door -----------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        chosen: Sequence[Chosen],
        *,
        prompt_ids: list[int],
        room: int,
        session: str = "",
        address: str = "",
        deliver: Callable[[Ticket, Step | Generation | Exception], None] | None = None,
    ) -> Ticket:
        """Put a request into the queue; `deliver` is called with all that comes of it.

        Raises RamoleError where it could never run, Busy where MAX_QUEUE others wait, or its
        address has its share of the queue.
        """
        self._kv.check(len(prompt_ids) + room)
        with self._door:
            check_place(
                self._waiting,
                session=session,
                address=address,
                max_queue=self.sizes.max_queue,
                max_batch=self.sizes.max_batch,
            )
            self._number += 1
            ticket = new_ticket(
                self._number,
                request,
                session=session,
                address=address,
                prompt_ids=prompt_ids,
                chosen=tuple(chosen),
                room=room,
                tokenizer=self._tokenizer,
            )
            if deliver is not None:
                ticket.deliver = deliver
            self._waiting.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End one request at the next step; the others do not feel it."""
        ticket.cancel()

    def place(self, ticket: Ticket) -> int:
        """1 is next, 0 runs or has ended."""
        return self.places().get(ticket, 0)

    def places(self) -> dict[Ticket, int]:
        """The place of every request that waits."""
        with self._door:
            order = in_turn(self._waiting, [*self._reading, *self._rows])
        return {ticket: number for number, ticket in enumerate(order, 1)}

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._reading or self._rows)

    def stats(self) -> Mapping[str, int | float]:
        """Counters, and what is held now."""
        held = {"running": self.running, "waiting": self.waiting, "kv_bytes": self._kv.nbytes}
        return asdict(self._stats) | held

    # --- one iteration ------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit, read one chunk of prompts, and decode one token of every running row."""
        events: list[Event] = []
        self._drop_cancelled(events)
        self._let_in(events)
        if self._reading:
            self._prefill(events)
        if self._rows:
            self._decode(events)
        if self.idle:
            self._forwards.forget()
        return events

    @torch.inference_mode()
    def fail(self) -> list[Ticket]:
        """Give up every request, after an error that nobody foresaw; frees what they held."""
        with self._door:
            lost = [*self._reading, *self._rows, *self._waiting]
            self._waiting.clear()
        for ticket in lost:
            self._leave(ticket)
        self._forwards.forget()
        return lost

    def _drop_cancelled(self, events: list[Event]) -> None:
        with self._door:
            gone = [ticket for ticket in self._waiting if ticket.cancelled]
            self._waiting = [ticket for ticket in self._waiting if not ticket.cancelled]
        gone += [ticket for ticket in [*self._reading, *self._rows] if ticket.cancelled]
        for ticket in gone:
            ticket.end("cancelled")
            self._finish(ticket, events)

    def _let_in(self, events: list[Event]) -> None:
        while self._waiting and self.running < self.sizes.max_batch:
            with self._door:
                ticket = in_turn(self._waiting, [*self._reading, *self._rows])[0]
            arena = self._kv.reserve(ticket.length)
            if arena is None:
                return
            try:
                line = self._admit(ticket)
            except RamoleError as error:
                self._kv.give_back(arena)
                self._take_out(ticket)
                events.append((ticket, error))
                continue
            if line is None:
                self._kv.give_back(arena)
                return
            self._take_out(ticket)
            ticket.line, ticket.arena = line, arena
            ticket.admitted = time.perf_counter()
            self._stats.admitted += 1
            self._reading.append(ticket)

    def _take_out(self, ticket: Ticket) -> None:
        with self._door:
            self._waiting.remove(ticket)

    def _prefill(self, events: list[Event]) -> None:
        began = time.perf_counter()
        tickets, counts = self._chunk()
        logits, gates, past = self._forwards.prefill(tickets, counts)
        chosen = logits.float().argmax(-1).tolist()
        for row, (ticket, count) in enumerate(zip(tickets, counts, strict=True)):
            ticket.read += count
            if ticket.read < len(ticket.prompt_ids):
                ticket.past = past
                if (found := gates[row]) is not None:
                    ticket.gates.append(found)
                continue
            step = ticket.advance(_greedy(ticket, chosen[row]), logits[row], gates[row], self._eos)
            events.append((ticket, step))
            ticket.past = None
            if not ticket.finish_reason:
                assert ticket.arena is not None
                self._kv.append(ticket.arena, ticket, past, row, len(ticket.prompt_ids))
                self._rows.append(ticket)
                self._reading.remove(ticket)
            else:
                self._finish(ticket, events)
        self._stats.prefill_tokens += sum(counts)
        self._stats.prefill_forwards += 1
        self._stats.prefill_seconds += time.perf_counter() - began

    def _chunk(self) -> tuple[list[Ticket], list[int]]:
        """Whose prompts are read now, and how many tokens of each.

        A prompt that is longer than a chunk goes alone, a piece a step; short ones of about the
        same length go together.
        """
        budget = self.sizes.prefill_chunk * (1 if self._rows else ALONE)
        first = self._reading[0]
        left = len(first.prompt_ids) - first.read
        if first.past is not None or left > budget:
            return [first], [min(left, budget)]
        tickets, longest = [first], left
        for ticket in self._reading[1:]:
            length = len(ticket.prompt_ids)
            widest = max(longest, length)
            fits = widest * (len(tickets) + 1) <= budget and 2 * min(longest, length) >= widest
            if ticket.past is None and fits:
                tickets.append(ticket)
                longest = widest
        return tickets, [len(ticket.prompt_ids) for ticket in tickets]

    def _decode(self, events: list[Event]) -> None:
        began = time.perf_counter()
        rows, logits, gates = self._forwards.decode()
        chosen = logits.float().argmax(-1).tolist()
        for row, ticket in enumerate(rows):
            step = ticket.advance(_greedy(ticket, chosen[row]), logits[row], gates[row], self._eos)
            events.append((ticket, step))
        for ticket in rows:
            if ticket.finish_reason:
                self._finish(ticket, events)
        self._stats.decode_tokens += len(rows)
        self._stats.decode_forwards += 1
        self._stats.decode_seconds += time.perf_counter() - began

    def _finish(self, ticket: Ticket, events: list[Event]) -> None:
        self._leave(ticket)
        self._stats.finished += 1
        events.append((ticket, ticket.generation(self._tokenizer, self._layout)))

    def _leave(self, ticket: Ticket) -> None:
        """Give back whatever the ticket holds."""
        if ticket in self._rows:
            self._rows.remove(ticket)
            self._kv.remove(ticket)
        elif ticket in self._reading:
            self._reading.remove(ticket)
            if ticket.arena is not None:
                self._kv.give_back(ticket.arena)
        if ticket.line is not None:
            self._release(ticket.line)
        ticket.line = ticket.arena = ticket.past = None


def _greedy(ticket: Ticket, token: int) -> int | None:
    """The batch's own choice where it is the request's."""
    return token if ticket.request.temperature == 0 else None
