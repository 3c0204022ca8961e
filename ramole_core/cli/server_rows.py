"""Ask a running server for the rows of a batch, several at a time, to be answered together."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

from ramole_core.batch.rows import BatchRow
from ramole_core.batch.run import Event
from ramole_core.cli.server import Server
from ramole_core.errors import RamoleError
from ramole_core.request import Generation

AT_ONCE = 8
"""Rows on their way; fewer than one address may have waiting."""


def ask_rows(server: Server, rows: Sequence[BatchRow]) -> Iterator[Event]:
    """Each token of each row as it comes; a Generation, or the error that refuses it, ends a row.
    Closing the iterator ends what is on its way."""
    todo, came = iter(rows), queue.SimpleQueue[Event | BaseException | None]()
    taking, ended = threading.Lock(), threading.Event()

    def work() -> None:
        try:
            while not ended.is_set():
                with taking:
                    row = next(todo, None)
                if row is None:
                    break
                _ask(server, row, came, ended)
        except BaseException as error:
            came.put(error)
        finally:
            came.put(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in rows[:AT_ONCE]]
    for worker in workers:
        worker.start()
    left = len(workers)
    try:
        while left:
            event = came.get()
            if event is None:
                left -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event
    finally:
        ended.set()


def _ask(
    server: Server,
    row: BatchRow,
    came: "queue.SimpleQueue[Event | BaseException | None]",
    ended: threading.Event,
) -> None:
    stream = server.stream(row.request)
    with closing(stream):
        try:
            while not ended.is_set():
                came.put((row, next(stream)))
        except StopIteration as end:
            assert isinstance(end.value, Generation)
            came.put((row, end.value))
        except RamoleError as error:
            came.put((row, error))
