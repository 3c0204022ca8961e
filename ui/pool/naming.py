"""Name files that came without a folder, by their contents.

A browser gives a dropped file's own name alone, and all adapters' files are named alike.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path

LARGEST = 2**20
"""Bytes of a file that is looked at."""
MAX_NAME = 60
CARD, CONFIG = "README.md", "adapter_config.json"
IN_CONFIG = ("adapter_name", "model_name", "name")
IN_FRONT = re.compile(r"^(?:- )?(?:model_name|name|title):[ \t]*[\"']?([^\"'\n#]+)", re.MULTILINE)
TITLE = re.compile(r"^#[ \t]+(?:model card for[ \t]+)?(.+)$", re.MULTILINE | re.IGNORECASE)
BLANK = {"model id", "model", "readme", "model card", "adapter", "lora"}
"""Titles of templates that nobody filled in."""


def declared_name(folder: Path, *, taken: Collection[str]) -> str:
    """The name that the configuration, the front matter or the title of the card gives, made free
    by a number; empty where none does."""
    config, card = _read(folder / CONFIG), _read(folder / CARD)
    for said in (*_of_config(config), *_of_card(card)):
        name = _plain(said)
        if name and name.replace("-", " ") not in BLANK:
            return next(n for n in _numbered(name, len(taken)) if n not in taken)
    return ""


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


def _numbered(name: str, others: int) -> list[str]:
    return [name, *(f"{name}-{i}" for i in range(2, others + 3))]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""
