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
from transformers import PreTrainedModel

from ramole_core.engine.kv import KvCache, KvSequence
from ramole_core.engine.model_runner import ModelRunner, Output, Piece
from ramole_core.engine.pages import pages_of
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.segments import Segments
from ramole_core.layers import RowMix
from ramole_core.turns import Source, TurnLock, never, still

LOOK_SECONDS = 0.02
"""Between two looks whether the batch has nothing to do any more."""
BEHIND_STEPS = 4
"""The batch has so many times as long as a piece of a source that has had more than its share."""
STANDS_STILL = 4
"""So many times as long as it is owed, and the batch waits for something else."""


class Part(NamedTuple):
    """Tokens of one prompt that a forward reads."""

    prompt: int
    start: int
    end: int


Watch = Callable[[Sequence[Part]], AbstractContextManager[object]]
"""Gives what is entered around each forward, by its parts in their order."""


class IsolatedForward:
    """Forwards in a cache of their own; thread-safe."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        runner: ModelRunner,
        placer: Placer,
        lock: TurnLock,
        chunk: int,
        idle: Callable[[], bool] = lambda: True,
        behind: Callable[[Source], bool] = lambda source: False,
        note: Callable[[Source, float], None] = lambda source, seconds: None,
    ):
        """`lock` is the engine's. Prompts of at most `chunk` tokens together are read in one
        forward, a longer one in pieces of so many. `idle`: whether the batch has nothing to do.
        `behind`: whether a source waits until others have had as much time as it; `note` counts
        what it has had."""
        self._model, self._runner, self._placer = model, runner, placer
        self._page_bytes = KvCache(model, limit=0).page_bytes
        self._lock, self._chunk = lock, chunk
        self._line = TurnLock()
        """Of all readers beside the batch, one waits for the engine's lock."""
        self._long = TurnLock()
        """One long prompt is read at a time, or their caches would fill the memory."""
        self._idle, self._behind, self._note = idle, behind, note
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
            end = time.monotonic() + STANDS_STILL * self._owed
            while self._owed > 0 and time.monotonic() < end:
                if self._idle() and not self._behind(source):
                    return
                still(cancelled)
                self._stepped.wait(LOOK_SECONDS)

    def read(
        self,
        asked: Sequence[tuple[Segments, Sequence[int]]],
        *,
        full: str,
        becomes: Sequence[int] = (),
        watch: Watch = lambda parts: nullcontext(),
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> tuple[Float[Tensor, "b v"], dict[int, Exception]]:
        """Logits after each prompt's last token, and errors of the methods' own scores, by index.

        `becomes`: how long the request of each may become, where that is more than its tokens.
        Prompts that fit into one forward together are read together. `source`: who asks, for whose
        turn it is. Raises RamoleError with the sentence `full` where their adapters have no room
        together now, Cancelled where `cancelled` is true while it waits. Without a source all who
        read take one turn.
        """
        lengths = list(becomes) or [0] * len(asked)
        logits: dict[int, Tensor] = {}
        faults: dict[int, Exception] = {}
        for group in groups([len(ids) for _, ids in asked], self._chunk):
            long, reading = sum(len(asked[n][1]) for n in group) > self._chunk, None
            while reading is None:
                while self._behind(source):  # before it holds anything that others wait for
                    still(cancelled)
                    time.sleep(LOOK_SECONDS)
                with self._long.turn(source, cancelled) if long else nullcontext():
                    if not (long and self._behind(source)):  # by those it waited for
                        turn = (source, cancelled)
                        reading = self._read(group, asked, lengths, full, watch, turn)
            logits |= reading.logits
            faults |= reading.faults
        return torch.stack([logits[n] for n in range(len(asked))]), faults

    def _read(
        self,
        group: Sequence[int],
        asked: Sequence[tuple[Segments, Sequence[int]]],
        becomes: Sequence[int],
        full: str,
        watch: Watch,
        turn: tuple[Source, Callable[[], bool]],
    ) -> "_Reading":
        reading: _Reading | None = None
        while reading is None or not reading.over:
            with self._line.turn(*turn):
                self._wait_for_steps(*turn)
                with self._lock.turn(), torch.inference_mode():
                    began = time.monotonic()
                    if reading is None:
                        kv = self._cache_of(asked, group)
                        reading = _Reading({n: asked[n] for n in group}, kv, becomes)
                    parts = reading.next_parts(self._chunk)
                    with self._placer.pinned(reading.placements(parts), full) as rows:
                        with watch(parts):
                            pieces = reading.pieces(parts, rows)
                            output = self._runner.forward(pieces, reading.kv, again=False)
                    reading.take(parts, output)
                    spent = time.monotonic() - began
                    self._note(turn[0], spent)
                    self._owed = spent * (BEHIND_STEPS if self._behind(turn[0]) else 1)
        return reading

    def _cache_of(
        self, asked: Sequence[tuple[Segments, Sequence[int]]], group: Sequence[int]
    ) -> KvCache:
        pages = sum(pages_of(len(asked[n][1])) for n in group)
        return KvCache(self._model, limit=pages * self._page_bytes)


class _Reading:
    """Prompts that are read together, as far as they are."""

    def __init__(
        self,
        asked: Mapping[int, tuple[Segments, Sequence[int]]],
        kv: KvCache,
        becomes: Sequence[int],
    ):
        self._asked, self.kv = asked, kv
        self._sequences: dict[int, KvSequence] = {}
        for n, (segments, ids) in asked.items():
            sequence = kv.open(segments.content(ids)[:1], len(ids), becomes=becomes[n])
            assert sequence is not None
            self._sequences[n] = sequence
        self.logits: dict[int, Tensor] = {}
        self.faults: dict[int, Exception] = {}

    @property
    def over(self) -> bool:
        """Whether all are read."""
        return len(self.logits) == len(self._asked)

    def next_parts(self, most: int) -> list[Part]:
        """What the next forward reads: at most so many tokens of each."""
        parts = []
        for n, (segments, ids) in self._asked.items():
            if n not in self.logits:
                start = self._sequences[n].length
                end = min(segments.all[segments.at(start)].end, start + most, len(ids))
                parts.append(Part(n, start, end))
        return parts

    def placements(self, parts: Sequence[Part]) -> list[Placement]:
        found = [(self._asked[n][0], start) for n, start, _ in parts]
        return [segments.all[segments.at(start)].placement for segments, start in found]

    def pieces(self, parts: Sequence[Part], rows: Sequence[RowMix]) -> list[Piece]:
        return [
            Piece(self._sequences[n], self._asked[n][1][start:end], row)
            for (n, start, end), row in zip(parts, rows, strict=True)
        ]

    def take(self, parts: Sequence[Part], output: Output) -> None:
        """Keep what was read, and the logits of the prompts that it ends."""
        for place, (n, start, end) in enumerate(parts):
            segments, ids = self._asked[n]
            if place in output.faults:
                self.faults[n], self.logits[n] = output.faults[place], output.logits[place]
                continue
            content = segments.content(ids[start:end], start)
            self.kv.commit(self._sequences[n], content, None, traced=False)
            if end == len(ids):
                self.logits[n] = output.logits[place]


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
