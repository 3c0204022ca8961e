"""A file of prompts as requests: jsonl, csv, or one prompt a line, each row checked on its own.

A row that cannot be used does not stop the others: it becomes a `BadRow` with its line number and
one sentence. Columns that no request has are carried along to the results, never applied.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from ramole_core.batch.cells import FIELDS, read_field
from ramole_core.engine.request import Request
from ramole_core.errors import RamoleError

Kind = Literal["jsonl", "csv", "lines"]
ENDINGS: dict[str, Kind] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""What a file's ending says about it; for any other, the text itself decides."""
DELIMITERS = ",;\t|"
NAMES = ("id", *FIELDS)


@dataclass(frozen=True)
class BatchLimits:
    """What a server takes; None: as much as there is."""

    rows: int | None = None
    characters: int | None = None
    """Of one prompt."""
    adapters: int | None = None
    """Of one row, named or retrieved."""


@dataclass(frozen=True)
class BatchRow:
    """One row that can be asked."""

    index: int
    """Place among the rows of the file, bad ones counted, from 0."""
    line: int
    """Where it begins in the file, from 1."""
    request: Request
    id: str | int | None = None
    """The row's own name, if it has one."""
    extra: dict[str, object] = field(default_factory=dict)
    """Columns that mean nothing to a request."""

    @property
    def digest(self) -> str:
        """16 hex digits of a SHA-256 of all that decides the answer; the owner does not."""
        said = asdict(self.request)
        del said["owner"], said["trace"]
        text = json.dumps([self.id, said], sort_keys=True, default=list)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class BadRow:
    """One row that cannot be asked, and why."""

    index: int
    line: int
    sentence: str
    text: str = ""
    """How the row begins."""


@dataclass(frozen=True)
class Batch:
    """A file's rows, good and bad."""

    kind: Kind
    rows: tuple[BatchRow, ...]
    bad: tuple[BadRow, ...]
    unused: tuple[str, ...]
    """Columns that are carried along, in order of appearance."""


def decode(data: bytes, name: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark; RamoleError for anything else."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RamoleError(f"{name} is not UTF-8 text at line {line}; save it as UTF-8.") from None


def kind_of(text: str) -> Kind:
    """What a text without a name is: csv by its header, jsonl by its first line, else lines."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if _delimiter(first) is not None:
        return "csv"
    try:
        return "jsonl" if isinstance(json.loads(first), str | dict) else "lines"
    except (ValueError, RecursionError):
        return "jsonl" if first.lstrip().startswith("{") else "lines"


def read_batch(
    text: str,
    *,
    kind: Kind | None = None,
    defaults: Mapping[str, object] | None = None,
    owner: str | None = None,
    limits: BatchLimits | None = None,
) -> Batch:
    """The rows of a text. `defaults`: fields of `Request` for the rows that do not say.

    Raises RamoleError where there is no row at all, a column is missing, or there are too many.
    """
    kind, limits = kind or kind_of(text), limits or BatchLimits()
    reader = {"jsonl": _json_lines, "csv": _csv_rows, "lines": _plain_lines}[kind]
    rows: list[BatchRow] = []
    bad: list[BadRow] = []
    unused: dict[str, None] = {}
    for index, (line, said) in enumerate(reader(text)):
        if limits.rows is not None and index >= limits.rows:
            raise RamoleError(f"There are more than {limits.rows} rows; split them.")
        if isinstance(said, BadRow):
            bad.append(BadRow(index, line, said.sentence, said.text))
            continue
        try:
            rows.append(_row(index, line, said, defaults or {}, owner=owner, limits=limits))
            unused |= dict.fromkeys(rows[-1].extra)
        except RamoleError as error:
            bad.append(BadRow(index, line, str(error), _beginning(said)))
    if not rows and not bad:
        raise RamoleError("There is no row; give one prompt a line, jsonl, or csv with a header.")
    return Batch(kind, tuple(rows), tuple(bad), tuple(unused))


def batch_text(data: bytes, name: str) -> tuple[str, Kind | None]:
    """A file's text, and what its name's ending says of it (None: the text itself decides).

    Raises RamoleError where it is no text.
    """
    return decode(data, name), ENDINGS.get(Path(name).suffix.lower())


def read_batch_file(path: Path, **options) -> Batch:
    """The rows of a file; its ending says how to read it, else its text. See `read_batch`."""
    text, kind = batch_text(path.read_bytes(), path.name)
    return read_batch(text, kind=kind, **options)


def known_column(name: str) -> bool:
    """Whether a column belongs to the request; RamoleError for what looks like a slip."""
    if name in NAMES:
        return True
    if near := get_close_matches(name, NAMES, 1, cutoff=0.8):
        raise RamoleError(f"{name!r} is not known; did you mean {near[0]!r}?")
    return False


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
    known = {name: value for name, value in said.items() if known_column(name)}
    extra = {name: value for name, value in said.items() if name not in known}
    name = known.pop("id", None)
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise RamoleError(f"id={_beginning(name)}; give a text or a whole number.")
    fields = {key: read_field(key, value) for key, value in known.items()}
    fields = {key: value for key, value in fields.items() if value is not None}
    request = Request(**{"prompt": "", **defaults, **fields}, trace=False, owner=owner)
    _within(request, limits)
    return BatchRow(index, line, request, name, extra)


def _within(request: Request, limits: BatchLimits) -> None:
    most, length = limits.characters, len(request.prompt)
    if most is not None and length > most:
        raise RamoleError(f"The prompt has {length} characters, and {most} is the most.")
    count = request.k if request.adapters is None else len(request.adapters)
    if limits.adapters is not None and count > limits.adapters:
        raise RamoleError(f"{count} adapters are asked for, and {limits.adapters} is the most.")


Read = Iterator[tuple[int, "Mapping[str, object] | BadRow"]]


def _plain_lines(text: str) -> Read:
    for line, prompt in _lines(text):
        yield line, {"prompt": prompt.strip()}


def _json_lines(text: str) -> Read:
    for line, words in _lines(text):
        try:
            said = json.loads(words, object_pairs_hook=_pairs, parse_constant=_not_json)
        except RamoleError as error:
            yield line, BadRow(0, line, str(error), _beginning(words))
            continue
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, str):
            yield line, {"prompt": said}
        elif isinstance(said, dict):
            yield line, said
        else:
            sentence = 'This is not JSON of one row; write {"prompt": "..."} on one line.'
            yield line, BadRow(0, line, sentence, _beginning(words))


def _csv_rows(text: str) -> Read:
    first = next((words for _, words in _lines(text)), "")
    delimiter = _delimiter(first) or ("" if first else ",")
    if not delimiter:
        raise RamoleError(
            f"The first line has no column named prompt, but {_beginning(first)}; name the "
            "columns there: prompt, and if you like id, method, k, adapters, ..."
        )
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = table.line_num + 1
        try:
            cells = next(table, None)
        except csv.Error as error:
            sentence = f"The csv breaks here ({error}); this and all after it was not read."
            yield line, BadRow(0, line, sentence)
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells)
        elif len(cells) > len(header):
            sentence = f"{len(cells)} cells, but the header names {len(header)} columns."
            yield line, BadRow(0, line, sentence, _beginning(delimiter.join(cells)))
        else:
            named = zip(header, cells, strict=False)
            yield line, {name: cell for name, cell in named if name and cell.strip()}


def _header(cells: list[str]) -> list[str]:
    names = [_column(cell) for cell in cells]
    twice = [name for i, name in enumerate(names) if name and name in names[:i]]
    if twice:
        raise RamoleError(f"The column {twice[0]!r} is there twice; rename one.")
    for name in filter(None, names):
        known_column(name)
    return names


def _column(cell: str) -> str:
    return "_".join(cell.strip().lower().split())


def _delimiter(first: str) -> str | None:
    """What separates the cells of a header; None where no column is named prompt."""
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([first.strip("\r\n")], delimiter=delimiter), [])
        except csv.Error:
            continue
        if "prompt" in map(_column, cells):
            return delimiter
    return None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers; only a line feed ends a line."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _pairs(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    said: dict[str, object] = {}
    for name, value in pairs:
        if name in said:
            raise RamoleError(f"{name!r} is there twice; keep one.")
        said[name] = value
    return said


def _not_json(name: str) -> object:
    raise RamoleError(f"{name} is not a number in JSON; leave it out.")


def _beginning(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= 80 else text[:79] + "…"
