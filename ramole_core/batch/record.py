"""The output of a batch: one JSON line for each row, read back where a run resumes.

An answer's line is known by its row's index and digest. The file is only ever added to: where an
index comes twice, because its row was changed, the last line counts.
"""

import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ramole_core.batch.rows import BadRow, BatchRow
from ramole_core.errors import RamoleError
from ramole_core.terminal.records import answer_record

if TYPE_CHECKING:
    from ramole_core.request import Generation

LINE_START = '{"index": '
"""Start of every line."""


@dataclass(frozen=True)
class AnswersFile:
    """The contents of an existing file of answers."""

    answered: frozenset[tuple[int, str]] = frozenset()
    """(index, digest) of each row that has its answer."""
    refused: frozenset[tuple[int, str]] = frozenset()
    """(index, sentence) of each row that was refused."""
    end: int = 0
    """Bytes of the whole lines; what follows was cut off."""


def record_of(row: BatchRow, answer: "Generation") -> dict[str, object]:
    """An answer with what made it and with the row's other columns."""
    made = answer_record(row.request, answer, None)
    del made["trace"]
    made["similarities"] = [None if math.isnan(score) else score for score in answer.scores]
    head = {"index": row.index, "line": row.line, "id": row.id, "digest": row.digest}
    return {**head, **made, **({"extra": row.extra} if row.extra else {})}


def refusal_of(row: BadRow) -> dict[str, object]:
    """The line of a row that could not be read."""
    return {"index": row.index, "line": row.line, "error": row.sentence, "row": row.text}


def as_line(record: dict[str, object]) -> str:
    """The record as one line of JSON, line feed included."""
    return json.dumps(record, ensure_ascii=False, default=str) + "\n"


@contextmanager
def added_to(path: Path) -> Iterator[tuple[BinaryIO, AnswersFile]]:
    """The file, open behind its last whole line, and what it has; no other run writes it.

    Raises RamoleError where another run does, or a line is none of ours.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RamoleError(
                f"Another run writes to {path}; wait for its end, or name another file."
            ) from None
        file.seek(0)
        written = _read_written(file.read(), path)
        file.truncate(written.end)
        yield file, written


def _read_written(data: bytes, path: Path) -> AnswersFile:
    """The contents of a file of answers; RamoleError where a line is not one."""
    end = data.rfind(b"\n") + 1
    last: dict[int, tuple[bool, str]] = {}  # whether it is an answer, and its digest or sentence
    for number, line in enumerate(data[:end].split(b"\n")[:-1], 1):
        record = _read(line)
        index, digest, error = record.get("index"), record.get("digest"), record.get("error")
        if isinstance(index, int) and isinstance(error, str):
            last[index] = (False, error)
        elif isinstance(index, int) and isinstance(digest, str) and "text" in record:
            last[index] = (True, digest)
        else:
            raise _not_ours(path, number)
    rest = data[end:].decode("utf-8", "replace")
    if not LINE_START.startswith(rest[: len(LINE_START)]):
        raise _not_ours(path, data.count(b"\n") + 1)
    answered, refused = (
        frozenset((index, said) for index, (good, said) in last.items() if good is wanted)
        for wanted in (True, False)
    )
    return AnswersFile(answered, refused, end)


def _read(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _not_ours(path: Path, line: int) -> RamoleError:
    return RamoleError(f"{path}, line {line}, is no answer of a batch; name another file.")
