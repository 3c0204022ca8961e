"""Run the rows of a batch: each gets an answer or an error of its own.

`Ramole.stream_batch` refuses all requests of a call for one that cannot run. Here such a call is
halved until the row is found, and the others run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.batch.rows import BadRow, Batch, BatchRow
from ramole_core.errors import Busy, RamoleError
from ramole_core.request import Generation, Step

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

WINDOW = 8
"""Rows of one call, in full batches: their adapters are all looked up before the first runs."""
RETRY_SECONDS = 1.0
"""Time between two tries where the server is busy."""

Event = tuple[BatchRow, "Step | Generation | RamoleError"]


def refuse_unfit(ramole: "Ramole", batch: Batch, *, owner: str | None) -> Batch:
    """Move rows that are sure to fail to the bad ones, before the model is loaded."""
    good: list[BatchRow] = []
    bad = list(batch.bad)
    for row in batch.rows:
        try:
            ramole.check(replace(row.request, owner=owner))
            good.append(row)
        except RamoleError as error:
            bad.append(BadRow(row.index, row.line, str(error), row.request.prompt[:80]))
    bad.sort(key=lambda row: row.index)
    return Batch(batch.kind, tuple(good), tuple(bad), batch.unused)


def run_rows(
    ramole: "Ramole",
    rows: Sequence[BatchRow],
    *,
    cancelled: Callable[[], bool] = lambda: False,
    session: str = "",
    address: str = "",
    waiting: Callable[[BatchRow, int], None] = lambda row, place: None,
    again: Callable[[BatchRow], None] = lambda row: None,
) -> Iterator[Event]:
    """Each token of each row as it comes; a Generation, or the error that refuses it, ends a row.

    `waiting` is called with a row and its place in the queue (1: next, 0: it runs), `again` with a
    row that restarts, as another row ended their call. Once `cancelled` is true the rows that run
    end as `cancelled`, and the rest is not run. A busy server is tried again.
    """
    size = WINDOW * ramole.settings.max_batch
    calls = [rows[start : start + size] for start in reversed(range(0, len(rows), size))]
    while calls and not cancelled():
        asked, begun, answered = calls.pop(), set[int](), set[int]()
        stream = ramole.stream_batch(
            [row.request for row in asked],
            cancelled=cancelled,
            session=session,
            address=address,
            waiting=lambda index, place, asked=asked: waiting(asked[index], place),
        )
        try:
            with closing(stream):
                for index, item in stream:
                    (answered if isinstance(item, Generation) else begun).add(index)
                    yield asked[index], item
        except RamoleError as error:
            left = [row for index, row in enumerate(asked) if index not in answered]
            busy = isinstance(error, Busy)
            if len(left) < 2 and not busy:
                yield from ((row, error) for row in left)
                continue
            for place in sorted(begun - answered):
                again(asked[place])
            if busy:
                time.sleep(RETRY_SECONDS)
            half = 0 if busy else len(left) // 2
            calls += [part for part in (left[half:], left[:half]) if part]
