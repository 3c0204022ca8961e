"""The columns of a batch: the fields of a request, and further columns that are passed through."""

from collections.abc import Collection
from difflib import get_close_matches

from ramole_core.errors import RamoleError
from ramole_core.request import FIELDS

NAMES = ("id", *FIELDS)
"""The columns that are not merely carried along."""
JSON_ALONE = ("drop_turns", *(name for name, takes in FIELDS.items() if takes.parts))
"""Fields that are lists in lists, or belong to one: csv has no way to write them."""
PROMPTS = ("prompt", "question", "text", "input", "inputs")
"""Columns that hold the prompt: the first of these that is there."""


def prompt_column(names: Collection[str]) -> str | None:
    """The column that holds the prompt; None where there is none."""
    return next((name for name in PROMPTS if name in names), None)


def known_column(name: str) -> bool:
    """Whether a column belongs to the request; RamoleError for a likely typo."""
    if name in NAMES:
        return True
    if near := get_close_matches(name, NAMES, 1, cutoff=0.8):
        raise RamoleError(f"{name!r} is not known; did you mean {near[0]!r}?")
    return False
