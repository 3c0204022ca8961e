"""The three formats of a batch's text, jsonl, csv and one prompt a line, read as numbered rows.

A row is a mapping from column to value, not yet checked; one that the format itself breaks is a
`BadRow`.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import zip_longest

from ramole_core.batch.rows import BadRow, Kind, beginning
from ramole_core.errors import RamoleError
from ramole_core.request import FIELDS

NAMES = ("id", *FIELDS)
"""Columns that are read; others are carried along."""
JSON_ALONE = ("drop_turns", *(name for name, takes in FIELDS.items() if takes.parts))
"""Fields that are nested lists, or belong to one: csv cannot express them."""
PROMPTS = ("prompt", "question", "text", "input", "inputs")
"""Columns that hold the prompt: the first of these that is there."""


def prompt_column(names: Collection[str]) -> str | None:
    """The column that holds the prompt; None where there is none."""
    return next((name for name in PROMPTS if name in names), None)


def known_column(name: str) -> bool:
    """Whether a column belongs to the request; RamoleError for a likely typo."""
    if name in NAMES:
        return True
    if near := _nearest(name):
        raise RamoleError(f"{name!r} is not known; did you mean {near[0]!r}?")
    return False


@lru_cache(maxsize=1024)
def _nearest(name: str) -> list[str]:
    return get_close_matches(name, NAMES, 1, cutoff=0.8)


NumberedRows = Iterator[tuple[int, Mapping[str, object] | BadRow]]
"""Line numbers from 1, each with its row."""
DELIMITERS = ",;\t|"
csv.field_size_limit(2**31 - 1)  # what a C long holds anywhere; a prompt may be long


def kind_of(text: str) -> Kind:
    """The format of an unnamed text: csv by its header, jsonl by its first line, else lines."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if _delimiter(first, PROMPTS[:1]) is not None:
        return "csv"
    try:
        return "jsonl" if isinstance(json.loads(first), str | dict | list) else "lines"
    except (ValueError, RecursionError):
        return "jsonl" if first.lstrip().startswith(("{", "[")) else "lines"


def _plain_lines(text: str) -> NumberedRows:
    for line, prompt in _lines(text):
        yield line, {"prompt": prompt.strip()}


def _json_lines(text: str) -> NumberedRows:
    for line, words in _lines(text):
        try:
            said = json.loads(
                words, object_pairs_hook=_pairs, parse_constant=_not_json, parse_float=_number
            )
        except RamoleError as error:
            yield line, BadRow(0, line, str(error), beginning(words))
            continue
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, str):
            yield line, {"prompt": said}
        elif isinstance(said, dict):
            yield line, said
        else:
            sentence = 'This is not JSON of one row; write {"prompt": "..."} on one line.'
            yield line, BadRow(0, line, sentence, beginning(words))


def _csv_rows(text: str) -> NumberedRows:
    first = next((words for _, words in _lines(text)), "")
    delimiter = _delimiter(first) or ("" if first else ",")
    if not delimiter:
        raise RamoleError(
            f"The first line has no column named prompt, question, text or input, but "
            f"{beginning(first)}; name the columns there: prompt, and if you like id, method, k, "
            "adapters, ..."
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
            yield line, BadRow(0, line, sentence, beginning(delimiter.join(cells)))
        else:
            asked = prompt_column(header)  # kept where its cell is empty: no other column is asked
            named = [pair for pair in zip_longest(header, cells, fillvalue="") if pair[0]]
            yield line, {name: cell for name, cell in named if cell.strip() or name == asked}


def _header(cells: list[str]) -> list[str]:
    names = [_column(cell) for cell in cells]
    twice = [name for i, name in enumerate(names) if name and name in names[:i]]
    if twice:
        raise RamoleError(f"The column {twice[0]!r} is there twice; rename one.")
    for name in filter(None, names):
        known_column(name)
        if name in JSON_ALONE:
            raise RamoleError(
                f"The column {name!r} needs lists in lists, which csv does not have; give these "
                'rows as jsonl, such as {"prompt": "...", "history": [["...", "..."]]}.'
            )
    return names


def _column(cell: str) -> str:
    return "_".join(cell.strip().lower().split())


def _delimiter(first: str, wanted: Sequence[str] = PROMPTS) -> str | None:
    """The delimiter of a header; None where no column has one of these names."""
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([first.strip("\r\n")], delimiter=delimiter), [])
        except csv.Error:
            continue
        if set(wanted) & set(map(_column, cells)):
            return delimiter
    return None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The nonempty lines with their numbers; only a line feed ends a line."""
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


def _number(words: str) -> float:
    number = float(words)
    if math.isinf(number):  # what the results could not be written with
        raise RamoleError(
            f"{beginning(words)} is beyond 1.8e308, the largest number; write a smaller one, or a "
            "text."
        )
    return number


READERS: dict[Kind, Callable[[str], NumberedRows]] = {
    "jsonl": _json_lines,
    "csv": _csv_rows,
    "lines": _plain_lines,
}
