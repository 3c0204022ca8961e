"""Second readings of finished answers for their effects, beside the batch.

They take no row and no place in the queue, and come last: nothing of them runs in a step that reads
a prompt, none begins while a request waits, and where rows decode a token is saved up for each step
and each answer that waits, until PIECE of them are read at once. Whoever has begun goes on, so that
nobody waits for what it holds.
"""

from collections import deque
from collections.abc import Callable, Sequence

from ramole_core.engine.chunk import Share, next_chunk
from ramole_core.engine.request_state import RequestState

PIECE = 32
"""Tokens that are read in one forward between two steps of rows that decode."""
IDLE_PIECE = 64
"""The same where no row decodes: a prompt that comes meanwhile waits for it."""


class ReadAgain:
    """The queue of second readings; `add` from any thread, the rest by the scheduler."""

    def __init__(self):
        self._coming: deque[RequestState] = deque()
        self.states: list[RequestState] = []
        """In the order in which they came."""
        self._spare = 0
        """Tokens that are saved up."""

    def __len__(self) -> int:
        return len(self._coming) + len(self.states)

    def add(self, states: Sequence[RequestState]) -> None:
        """Queue these readings."""
        self._coming.extend(states)

    def take_in(self) -> list[RequestState]:
        """All readings, new ones included."""
        while self._coming:
            self.states.append(self._coming.popleft())
        return self.states

    def after_step(self, *, rows: int) -> None:
        """Count a step of so many decoding rows towards the next reading."""
        answers = len({state.number for state in self.states})
        saved = self._spare + answers if rows else PIECE
        self._spare = min(saved, PIECE) if answers else 0

    def chunk(
        self,
        *,
        begin: Callable[[RequestState], bool],
        mixed: Callable[[RequestState], bool],
        decoding: bool,
    ) -> list[Share]:
        """The readings of the next chunk; `begin` opens the pages of one that has none and says
        whether it could, `mixed` whether its adapters are in the bank."""
        if not self.states or (decoding and self._spare < PIECE):
            return []
        budget = PIECE if decoding else IDLE_PIECE
        ready, left = [], budget
        for state in list(self.states):
            if left <= 0 or (state.sequence is None and not begin(state)):
                break
            if mixed(state):
                ready.append(state)
                left -= state.unfed
        found = next_chunk(ready, budget)
        if decoding and found:
            self._spare = 0
        return found
