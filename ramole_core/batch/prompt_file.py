"""A file of prompts as requests: jsonl, csv, or one prompt a line, each row checked on its own.

A row that cannot be used does not stop the others: it becomes a `BadRow` with its line number and
one sentence. Columns that no request has are carried along to the results, never applied.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from ramole_core.batch.formats import READERS, kind_of, known_column, prompt_column
from ramole_core.batch.rows import BadRow, Batch, BatchLimits, BatchRow, Kind, beginning
from ramole_core.errors import RamoleError
from ramole_core.request import Request, is_unsaid, read_request
from ramole_core.request_parts import read_examples, read_history
from ramole_core.text_file import decode

ENDINGS: dict[str, Kind] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Format by a file's ending; otherwise the text decides."""


def read_batch(
    text: str,
    *,
    kind: Kind | None = None,
    defaults: Mapping[str, object] | None = None,
    owner: str | None = None,
    limits: BatchLimits | None = None,
) -> Batch:
    """The rows of a text. `defaults`: fields of `Request` for rows that lack them.

    Raises RamoleError where there is no row at all, a column is missing, or there are too many.
    """
    kind, limits = kind or kind_of(text), limits or BatchLimits()
    rows: list[BatchRow] = []
    bad: list[BadRow] = []
    unused: dict[str, None] = {}
    for index, (line, said) in enumerate(READERS[kind](text)):
        if limits.rows is not None and index >= limits.rows:
            raise RamoleError(f"There are more than {limits.rows} rows; split them.")
        if isinstance(said, BadRow):
            bad.append(BadRow(index, line, said.sentence, said.text))
            continue
        try:
            row = _row(index, line, said, defaults or {}, owner=owner, limits=limits)
        except RamoleError as error:
            bad.append(BadRow(index, line, str(error), beginning(said)))
            continue
        rows.append(row)
        unused |= dict.fromkeys(row.extra)
        if limits.columns is not None and len(unused) > limits.columns:
            raise RamoleError(
                f"There are more than {limits.columns} columns that no request has; leave some out."
            )
    if not rows and not bad:
        raise RamoleError("There is no row; give one prompt a line, jsonl, or csv with a header.")
    return Batch(kind, tuple(rows), tuple(bad), tuple(unused))


def batch_text(data: bytes, name: str) -> tuple[str, Kind | None]:
    """Return a file's text, and the format of its name's ending (None: the text decides).

    Raises RamoleError where it is no text.
    """
    return decode(data, name), ENDINGS.get(Path(name).suffix.lower())


def read_batch_file(path: Path, **options) -> Batch:
    """The rows of a file; its ending decides how to read it, else its text. See `read_batch`."""
    text, kind = batch_text(path.read_bytes(), path.name)
    return read_batch(text, kind=kind, **options)


def _row(
    index: int,
    line: int,
    said: Mapping[str, object],
    defaults: Mapping[str, object],
    *,
    owner: str | None,
    limits: BatchLimits,
) -> BatchRow:
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RamoleError("The row holds half of a character (a surrogate); correct it.") from None
    named = prompt_column(said)
    said = {"prompt" if name == named else name: value for name, value in said.items()}
    known = {name: value for name, value in said.items() if known_column(name)}
    extra = {name: value for name, value in said.items() if name not in known}
    name = known.pop("id", None)
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise RamoleError(f"id={beginning(name)}; give a text or a whole number.")
    fields = {key: value for key, value in known.items() if not is_unsaid(key, value)}
    request = read_request({**defaults, **fields}, trace=False, owner=owner)
    _within(request, limits)
    return BatchRow(index, line, request, name, extra)


def _within(request: Request, limits: BatchLimits) -> None:
    earlier = read_history(request.history)
    most, length = limits.characters, len(request.prompt)
    length += sum(len(turn.user) + len(turn.assistant) for turn in earlier)
    if most is not None and length > most:
        what = "conversation" if earlier else "prompt"
        raise RamoleError(f"The {what} has {length} characters, and {most} is the most.")
    size = sum(len(pair.input) + len(pair.target) for pair in read_examples(request.examples))
    if most is not None and size > most:
        raise RamoleError(f"The examples have {size} characters, and {most} is the most.")
    count = request.k if request.adapters is None else len(request.adapters)
    count = max(count, *(len(turn.adapters or ()) for turn in earlier), 0)
    if limits.adapters is not None and count > limits.adapters:
        raise RamoleError(f"{count} adapters are asked for, and {limits.adapters} is the most.")
