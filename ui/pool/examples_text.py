"""Example inputs of an adapter as people give them: lines, a text file, or JSON lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ramole_core import MAX_EXAMPLE, AdapterRefused

MAX_GIVEN = 1000
"""Of these the pool keeps the first ones, and notes it."""
TEXT_KEYS = ("text", "input", "inputs", "prompt", "question", "instruction")


def examples_from_lines(text: str | None) -> list[str]:
    """One example a line; where empty lines stand between them, each may have several."""
    said = "\n".join((text or "").splitlines()).strip()
    blocks = re.split(r"\n\s*\n", said)
    return _checked([one.strip() for one in (blocks if len(blocks) > 1 else said.split("\n"))])


def examples_from_file(path: Path) -> list[str]:
    """The examples of a .txt (as they are typed), .jsonl (a string or an object a line) or .json
    (a list of them) file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise AdapterRefused(f"{path.name} is not text in UTF-8; save it as UTF-8.") from None
    kind = path.suffix.lower()
    if kind == ".json":
        return _checked([_text(row, f"{path.name}, item {i}") for i, row in _items(text, path)])
    if kind != ".jsonl":
        return examples_from_lines(text)
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _checked([_example(line, f"{path.name}, line {i}") for i, line in lines])


def _example(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise AdapterRefused(f'{place} is not JSON; write {{"text": "..."}}.') from None
    return _text(row, place)


def _items(text: str, path: Path) -> Iterator[tuple[int, object]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise AdapterRefused(f'{path.name} is no JSON list; write ["...", "..."].')
    yield from enumerate(rows, 1)


def _text(row: object, place: str) -> str:
    if isinstance(row, str):
        return row.strip()
    if isinstance(row, dict):
        for key in TEXT_KEYS:
            if isinstance(row.get(key), str):
                return row[key].strip()
    raise AdapterRefused(f'{place} has no text; write {{"text": "..."}}.')


def _checked(examples: list[str]) -> list[str]:
    kept = [example for example in examples if example]
    if len(kept) > MAX_GIVEN:
        raise AdapterRefused(
            f"{len(kept)} examples are given, and {MAX_GIVEN} is the most; leave some out."
        )
    longest = max((len(example) for example in kept), default=0)
    if longest > MAX_EXAMPLE:
        raise AdapterRefused(
            f"An example has {longest} characters, and {MAX_EXAMPLE} is the most; shorten it."
        )
    return kept
