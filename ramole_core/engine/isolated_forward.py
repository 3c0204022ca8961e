"""Forwards of whole prompts beside the batch, in a cache of their own; the same numbers.

For looking: the next token at some position, or what goes into the layers at a prompt's end. A
prompt is read in pieces; after each the batch has as much time, and every other reader a turn.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.engine.kv import KvCache, KvSequence
from ramole_core.engine.model_runner import ModelRunner, Piece
from ramole_core.engine.pages import pages_of
from ramole_core.engine.placement import Placer
from ramole_core.engine.scheduler import Scheduler
from ramole_core.engine.segments import Segment, Segments
from ramole_core.turns import Source, TurnLock, never, still

POLL_SECONDS = 0.02
"""Interval at which it is polled whether the batch is idle."""
BEHIND_STEPS = 4
"""Time of the batch after a piece, over that piece, for a source beyond its share."""
MAX_WAIT = 4
"""Longest wait for the batch's steps, over the time that it is owed."""


class PromptJob(NamedTuple):
    """A prompt to be read."""

    segments: Segments
    ids: Sequence[int]
    becomes: int = 0
    """Length that its request may reach, where that is more than its tokens."""


class Chunk(NamedTuple):
    """Tokens of one prompt that a forward reads."""

    prompt: int
    start: int
    end: int


ForwardContext = Callable[[Sequence[Chunk]], AbstractContextManager[object]]
"""From a forward's parts, in order: the context in which it runs."""


class IsolatedForward:
    """Forwards in a cache of their own; thread-safe."""

    def __init__(
        self, runner: ModelRunner, *, placer: Placer, lock: TurnLock, scheduler: Scheduler
    ):
        """`lock` is the engine's. Prompts of at most a chunk together are read in one forward, a
        longer one in pieces of so many tokens."""
        self._runner, self._placer = runner, placer
        self._page_bytes = KvCache(runner.model, limit=0).page_bytes
        self._lock, self._chunk, self._scheduler = lock, scheduler.sizes.prefill_chunk, scheduler
        self._turns = TurnLock()
        """Readers take turns: only one at a time waits for the engine's lock."""
        self._long = TurnLock()
        """Long prompts are read one at a time, since their caches would fill the memory."""
        self._owed = 0.0
        """Seconds that the batch has before the next piece: as many as the last piece took, or
        BEHIND_STEPS times as many."""
        self._stepped = threading.Condition()

    def note_step(self, seconds: float) -> None:
        """Count a step of the batch, which took so long."""
        with self._stepped:
            self._owed -= seconds
            if self._owed <= 0:
                self._stepped.notify_all()

    def _wait_for_steps(self, source: Source, cancelled: Callable[[], bool]) -> None:
        """Wait until the batch has had as much time as the last piece, or has nothing to do and
        this source has not had too much, or stands still."""
        with self._stepped:
            end = time.monotonic() + MAX_WAIT * self._owed
            while self._owed > 0 and time.monotonic() < end:
                if self._scheduler.idle and not self._scheduler.behind(source):
                    return
                still(cancelled)
                self._stepped.wait(POLL_SECONDS)

    def read(
        self,
        jobs: Sequence[PromptJob],
        *,
        full: str,
        watch: ForwardContext = lambda parts: nullcontext(),
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> tuple[Float[Tensor, "b v"], dict[int, Exception]]:
        """Logits after each prompt's last token, and errors of the methods' own scores, by index.

        Prompts that fit into one forward together are read together. `source`: the sender, which
        takes a turn. Raises RamoleError with the sentence `full` where their adapters have no room
        together now, Cancelled where `cancelled` is true while it waits. Without a source all who
        read take one turn.
        """
        logits: dict[int, Tensor] = {}
        faults: dict[int, Exception] = {}
        for group in groups([len(job.ids) for job in jobs], self._chunk):
            mine, reading = {n: jobs[n] for n in group}, None
            long = sum(len(job.ids) for job in mine.values()) > self._chunk
            while reading is None:
                while self._scheduler.behind(source):  # before it holds what others wait for
                    still(cancelled)
                    time.sleep(POLL_SECONDS)
                with self._long.turn(source, cancelled) if long else nullcontext():
                    if not (long and self._scheduler.behind(source)):  # by those it waited for
                        reading = self._read(mine, full, watch, source, cancelled)
            logits |= reading.logits
            faults |= reading.faults
        return torch.stack([logits[n] for n in range(len(jobs))]), faults

    def _read(
        self,
        jobs: Mapping[int, PromptJob],
        full: str,
        watch: ForwardContext,
        source: Source,
        cancelled: Callable[[], bool],
    ) -> "_Reading":
        reading: _Reading | None = None
        while reading is None or len(reading.logits) < len(jobs):
            with self._turns.turn(source, cancelled):
                self._wait_for_steps(source, cancelled)
                with self._lock.turn(), torch.inference_mode():
                    began = time.monotonic()
                    if reading is None:
                        pages = sum(pages_of(len(job.ids)) for job in jobs.values())
                        kv = KvCache(self._runner.model, limit=pages * self._page_bytes)
                        reading = _Reading(jobs, kv)
                    self._read_parts(reading, full, watch)
                    spent = time.monotonic() - began
                    self._scheduler.shares.add(spent, [(source, 1.0)])
                    self._owed = spent * (BEHIND_STEPS if self._scheduler.behind(source) else 1)
        return reading

    def _read_parts(self, reading: "_Reading", full: str, watch: ForwardContext) -> None:
        """Run one forward: the next parts of all prompts that are not read."""
        jobs, parts = reading.jobs, reading.next_parts(self._chunk)
        placements = [reading.segment(n).placement for n, _, _ in parts]
        with self._placer.pinned(placements, full) as rows, watch(parts):
            pieces = [
                Piece(reading.sequences[n], jobs[n].ids[start:end], row)
                for (n, start, end), row in zip(parts, rows, strict=True)
            ]
            output = self._runner.forward(pieces, reading.kv, again=False)
        for place, (n, start, end) in enumerate(parts):
            segments, ids, _ = jobs[n]
            if place in output.faults:
                reading.faults[n] = output.faults[place]
            else:
                content = segments.content(ids[start:end], start)
                reading.kv.commit(reading.sequences[n], content, None, traced=False)
            if place in output.faults or end == len(ids):
                reading.logits[n] = output.logits[place]


class _Reading:
    """Prompts that are read together, and their progress."""

    def __init__(self, jobs: Mapping[int, PromptJob], kv: KvCache):
        self.jobs, self.kv = jobs, kv
        self.sequences: dict[int, KvSequence] = {}
        for n, (segments, ids, becomes) in jobs.items():
            sequence = kv.open(segments.content(ids)[:1], len(ids), becomes=becomes)
            assert sequence is not None
            self.sequences[n] = sequence
        self.logits: dict[int, Tensor] = {}
        self.faults: dict[int, Exception] = {}

    def segment(self, n: int) -> Segment:
        """That of the next token of a prompt."""
        segments = self.jobs[n].segments
        return segments.all[segments.at(self.sequences[n].length)]

    def next_parts(self, most: int) -> list[Chunk]:
        """Return the parts of the next forward: at most so many tokens of each prompt."""
        parts = []
        for n, job in self.jobs.items():
            if n not in self.logits:
                start = self.sequences[n].length
                parts.append(Chunk(n, start, min(self.segment(n).end, start + most, len(job.ids))))
        return parts


def groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indexes of the prompts that are read together: the shortest first, so many as have `most`
    tokens together; a longer one is by itself."""
    found: list[list[int]] = []
    total = 0
    for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        if not found or total + lengths[n] > most:
            found.append([])
            total = 0
        found[-1].append(n)
        total += lengths[n]
    return found
