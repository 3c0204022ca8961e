"""Example inputs of an adapter as people give them: lines, a text file, or JSON lines."""

import json
from pathlib import Path

from ramole_core import AdapterRefused

MOST = 1000
LONGEST = 8000
TEXT_KEYS = ("text", "input", "inputs", "prompt", "question", "instruction")


def examples_from_lines(text: str | None) -> list[str]:
    """One example a line; empty lines are left out."""
    return _checked([line.strip() for line in (text or "").splitlines()])


def examples_from_file(path: Path) -> list[str]:
    """The examples of a .txt (one a line) or .jsonl (a string or an object a line) file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise AdapterRefused(f"{path.name} is not text in UTF-8; save it as UTF-8.") from None
    if path.suffix.lower() != ".jsonl":
        return examples_from_lines(text)
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    return _checked([_example(line, f"{path.name}, line {i}") for i, line in lines])


def _example(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise AdapterRefused(f'{place} is not JSON; write {{"text": "..."}}.') from None
    if isinstance(row, str):
        return row.strip()
    if isinstance(row, dict):
        for key in TEXT_KEYS:
            if isinstance(row.get(key), str):
                return row[key].strip()
    raise AdapterRefused(f'{place} has no text; write {{"text": "..."}}.')


def _checked(examples: list[str]) -> list[str]:
    kept = [example for example in examples if example]
    if len(kept) > MOST:
        raise AdapterRefused(
            f"{len(kept)} examples are given, and {MOST} is the most; leave some out."
        )
    longest = max((len(example) for example in kept), default=0)
    if longest > LONGEST:
        raise AdapterRefused(
            f"An example has {longest} characters, and {LONGEST} is the most; shorten it."
        )
    return kept
