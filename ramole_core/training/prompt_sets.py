"""Prompts for situations without a data set: everyday talk, people's own words.

`prompts/` has four files, written for this project: everyday.json (what no sample adapter does, by
family), phrased.json (what one does, without the words of its training data), follow_up.json (chats
of two turns) and uploads.json (invented adapters whose task is talk).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Everyday:
    """A prompt that the base answers best."""

    family: str
    text: str


@dataclass(frozen=True)
class Phrased:
    """A prompt in a person's own words, and its adapter."""

    adapter: str
    text: str


@dataclass(frozen=True)
class FollowUp:
    """A chat of two turns; the second message is the one to be answered."""

    adapter: str
    """Adapter of the first message's task."""
    first: str
    answer: str
    """The assistant's answer, in the adapter's style."""
    then: str
    expected: str | None
    """Right choice for the second message: an adapter, the first one's or another; None: the
    base."""

    @property
    def continues(self) -> bool:
        """Whether the second message belongs to the adapter of the first."""
        return self.expected == self.adapter


@dataclass(frozen=True)
class Upload:
    """An invented adapter: its card, and further prompts of its kind."""

    name: str
    examples: tuple[str, ...]
    prompts: tuple[str, ...]


def read_everyday() -> tuple[Everyday, ...]:
    """The everyday prompts, family by family."""
    found = _read("everyday").items()
    return tuple(Everyday(family, text) for family, texts in found for text in texts)


def read_phrased() -> tuple[Phrased, ...]:
    """The prompts in people's own words, adapter by adapter."""
    found = _read("phrased").items()
    return tuple(Phrased(name, text) for name, texts in found for text in texts)


def read_follow_ups() -> tuple[FollowUp, ...]:
    """The chats: those that continue the task first, then those that change it."""
    found = _read("follow_up")
    kept = [FollowUp(**row, expected=row["adapter"]) for row in found["continues"]]
    return (*kept, *(FollowUp(**row) for row in found["changes"]))


def read_uploads() -> tuple[Upload, ...]:
    """The invented adapters."""
    found = _read("uploads").items()
    return tuple(Upload(name, tuple(one["examples"]), tuple(one["prompts"])) for name, one in found)


def _read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
