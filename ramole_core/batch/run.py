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
"""Between two tries where the server is busy."""

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
    row that is asked from its beginning again, as another row ended their call. Once
    `cancelled` is true the rows that run end as `cancelled`, and the rest is not asked. A busy
    server is tried again.
    """
    size = WINDOW * ramole.settings.max_batch
    for start in range(0, len(rows), size):
        if cancelled():
            return
        yield from _answered(
            ramole,
            rows[start : start + size],
            cancelled=cancelled,
            session=session,
            address=address,
            waiting=waiting,
            again=again,
        )


def _answered(
    ramole: "Ramole",
    rows: Sequence[BatchRow],
    *,
    cancelled: Callable[[], bool],
    session: str,
    address: str,
    waiting: Callable[[BatchRow, int], None],
    again: Callable[[BatchRow], None],
) -> Iterator[Event]:
    how = {"cancelled": cancelled, "session": session, "address": address}
    while rows and not cancelled():
        asked, begun, answered = rows, set[int](), set[int]()
        stream = ramole.stream_batch(
            [row.request for row in asked],
            waiting=lambda index, place, asked=asked: waiting(asked[index], place),
            **how,
        )
        try:
            with closing(stream):
                for index, item in stream:
                    (answered if isinstance(item, Generation) else begun).add(index)
                    yield asked[index], item
            return
        except Busy:
            rows = [row for index, row in enumerate(asked) if index not in answered]
            _each(asked, begun - answered, again)
            time.sleep(RETRY_SECONDS)
        except RamoleError as error:
            rows = [row for index, row in enumerate(asked) if index not in answered]
            if len(rows) < 2:
                yield from ((row, error) for row in rows)
                return
            _each(asked, begun - answered, again)
            half = len(rows) // 2
            yield from _answered(ramole, rows[:half], waiting=waiting, again=again, **how)
            rows = rows[half:]


def _each(rows: Sequence[BatchRow], places: set[int], tell: Callable[[BatchRow], None]) -> None:
    for place in sorted(places):
        tell(rows[place])
