"""Name and examples from the files of an upload.

A browser gives a dropped file's own name alone, and all adapters' files are named alike. Examples
are lines, a text file, or JSON lines.
"""

import json
import re
from collections.abc import Collection, Iterator
from itertools import chain, count
from pathlib import Path

from ramole_core import MAX_EXAMPLE, AdapterRefused, read_text

MAX_BYTES = 2**20
"""Most bytes of a file that is read."""
MAX_NAME = 60
CARD, CONFIG = "README.md", "adapter_config.json"
IN_CONFIG = ("adapter_name", "model_name", "name")
IN_FRONT = re.compile(r"^(?:- )?(?:model_name|name|title):[ \t]*[\"']?([^\"'\n#]+)", re.MULTILINE)
TITLE = re.compile(r"^#[ \t]+(?:model card for[ \t]+)?(.+)$", re.MULTILINE | re.IGNORECASE)
BLANK = {"model id", "model", "readme", "model card", "adapter", "lora"}
"""Titles of unfilled templates."""


def declared_name(folder: Path, *, taken: Collection[str]) -> str:
    """The name that the configuration, the front matter or the title of the card gives, made free
    by a number; empty where none does."""
    config, card = _read(folder / CONFIG), _read(folder / CARD)
    for said in (*_of_config(config), *_of_card(card)):
        name = _plain(said)
        if name and name.replace("-", " ") not in BLANK:
            return free_name(name, taken)
    return ""


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken."""
    numbered = (f"{name}-{i}" for i in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def _of_config(text: str) -> list[str]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return []
    said = [config.get(key) for key in IN_CONFIG] if isinstance(config, dict) else []
    return [word for word in said if isinstance(word, str)]


def _of_card(text: str) -> list[str]:
    front, body = "", text
    if text.startswith("---\n"):
        front, _, body = text[4:].partition("\n---")
    return IN_FRONT.findall(front)[:3] + TITLE.findall(body)[:1]


def _plain(said: str) -> str:
    """Reduce to the characters of a name, without the owner before a slash."""
    word = said.strip().rstrip("/").rpartition("/")[2][:MAX_NAME].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", word).strip("-_")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""


MAX_GIVEN = 1000
"""Most examples of an upload; the pool keeps the first ones, and notes it."""
TEXT_KEYS = ("text", "input", "inputs", "prompt", "question", "instruction")


def examples_from_lines(text: str | None) -> list[str]:
    """One example a line; where empty lines stand between them, each may have several."""
    said = "\n".join((text or "").splitlines()).strip()
    blocks = re.split(r"\n\s*\n", said)
    return _checked([one.strip() for one in (blocks if len(blocks) > 1 else said.split("\n"))])


def examples_from_file(path: Path) -> list[str]:
    """The examples of a .txt (as they are typed), .jsonl (a string or an object a line) or .json
    (a list of them) file."""
    text = read_text(path, path.name)
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
