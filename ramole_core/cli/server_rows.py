"""Send the rows of a batch to a running server, several at a time, so that they run together."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

from ramole_core.batch.rows import BatchRow
from ramole_core.batch.run import RETRY_SECONDS, Event
from ramole_core.cli.server import Server, Unreachable
from ramole_core.errors import Busy, RamoleError
from ramole_core.request import Generation

MAX_IN_FLIGHT = 8
"""Rows in flight; those beyond an address's share of the queue are retried."""


def ask_rows(server: Server, rows: Sequence[BatchRow]) -> Iterator[Event]:
    """Each picture of each row as it grows; a Generation, or the error that refuses it, ends a row.
    Closing the iterator ends rows in flight.

    A busy server is tried again. Raises Unreachable where it ends or refuses the login.
    """
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

    workers = [threading.Thread(target=work, daemon=True) for _ in rows[:MAX_IN_FLIGHT]]
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
    while not ended.is_set():
        try:
            with closing(server.stream(row.request)) as stream:
                while not ended.is_set():
                    came.put((row, next(stream)))
        except StopIteration as end:
            answer: Generation = end.value
            if answer.finish_reason == "cancelled":
                raise Unreachable(f"The server at {server.url} stops; what came is kept.") from None
            came.put((row, answer))
            return
        except Busy:
            ended.wait(RETRY_SECONDS)
        except Unreachable:
            raise
        except RamoleError as error:
            came.put((row, error))
            return
