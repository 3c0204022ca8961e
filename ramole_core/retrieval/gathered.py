"""Encode texts of several threads together."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from jaxtyping import Float32

MAX_BATCH = 16
"""Most texts of one call, for which a prompt that comes meanwhile waits."""

Rows = Sequence[Float32[np.ndarray, "d"]]
_Pending = tuple[str, Future[np.ndarray]]
"""A text, and its row to come."""


class Gathered:
    """A batching wrapper: while one caller reads, others' texts gather for the next call."""

    def __init__(self, read: Callable[[list[str]], Rows]):
        """`read` is called by one thread at a time, with at most MAX_BATCH texts."""
        self._read = read
        self._reading = threading.Lock()
        self._waiting: deque[_Pending] = deque()

    def __call__(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """The result of `read` for each; raises what it raises for one of them."""
        rows: list[np.ndarray] = []
        for first in range(0, len(texts), MAX_BATCH):  # or a long list would be before every prompt
            asked: list[_Pending] = [(text, Future()) for text in texts[first : first + MAX_BATCH]]
            self._waiting.extend(asked)
            rows += [self._row_of(row) for _, row in asked]
        return rows

    def _row_of(self, row: Future[np.ndarray]) -> np.ndarray:
        if not row.done():
            with self._reading:
                while not row.done():
                    self._read_next()
        return row.result()

    def _read_next(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        try:
            self._fill(batch)
        except BaseException:  # this reader was interrupted: another one goes on
            self._waiting.extendleft(one for one in reversed(batch) if not one[1].done())
            raise

    def _fill(self, batch: Sequence[_Pending]) -> None:
        """Read these together, or where that fails each by itself, so that an error stays with its
        text."""
        try:
            rows = self._read([text for text, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._fill([one])
            return
        for (_, asked), row in zip(batch, rows, strict=True):
            asked.set_result(row)
