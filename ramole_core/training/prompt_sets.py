"""Prompts for situations without a data set: everyday talk, people's own words.

`prompts/` has four files: everyday.json (what no sample adapter does, in families), phrased.json
(what one does, without the words of its training data), follow_up.json (chats of two turns) and
uploads.json (invented adapters whose task is talk). Each text is written for this project.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramole_core.errors import RamoleError

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
    """What the first message wants."""
    first: str
    answer: str
    """The assistant's, in the adapter's style."""
    then: str
    expected: str | None
    """What the second message wants: an adapter, the first one's own or another, or the base
    (None)."""

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


def read_everyday(folder: Path | None = None) -> tuple[Everyday, ...]:
    """The everyday prompts, family by family. Raises RamoleError where the file is broken."""
    file = (folder or FOLDER) / "everyday.json"
    return tuple(
        Everyday(family, text)
        for family, texts in _named(file)
        for text in _texts(texts, file, family)
    )


def read_phrased(folder: Path | None = None) -> tuple[Phrased, ...]:
    """The prompts in people's own words, adapter by adapter. Raises RamoleError as above."""
    file = (folder or FOLDER) / "phrased.json"
    return tuple(
        Phrased(name, text) for name, texts in _named(file) for text in _texts(texts, file, name)
    )


def read_follow_ups(folder: Path | None = None) -> tuple[FollowUp, ...]:
    """The chats: those that `continues` first, then those that change the task.

    Raises RamoleError where the file is broken or a change does not change anything.
    """
    file = (folder or FOLDER) / "follow_up.json"
    parts = dict(_named(file))
    if set(parts) != {"continues", "changes"}:
        raise _broken(file, "the top", 'the two lists "continues" and "changes"')
    found = []
    for part, rows in parts.items():
        wanted = ("adapter", "first", "answer", "then", *(["expected"] * (part == "changes")))
        for place, row in enumerate(_list(rows, file, part), 1):
            found.append(_chat(row, wanted, file, f"{part}, row {place}"))
    return tuple(sorted(found, key=lambda chat: not chat.continues))


def read_uploads(folder: Path | None = None) -> tuple[Upload, ...]:
    """The invented adapters. Raises RamoleError where the file is broken."""
    file = (folder or FOLDER) / "uploads.json"
    found = []
    for name, given in _named(file):
        if not isinstance(given, dict) or set(given) != {"examples", "prompts"}:
            raise _broken(file, name, 'the two lists "examples" and "prompts"')
        both = (_texts(given[part], file, f"{name}, {part}") for part in ("examples", "prompts"))
        found.append(Upload(name, *both))
    return tuple(found)


def _chat(row: object, wanted: Sequence[str], file: Path, place: str) -> FollowUp:
    """A chat from its row; `wanted` are the fields it must have."""
    if not isinstance(row, dict) or set(row) != set(wanted):
        raise _broken(file, place, f"the fields {', '.join(wanted)}")
    chat = FollowUp(**{"expected": row.get("adapter"), **row})
    texts = (chat.adapter, chat.first, chat.answer, chat.then)
    expected = () if chat.expected is None else (chat.expected,)
    if not all(isinstance(text, str) and text.strip() for text in (*texts, *expected)):
        raise _broken(file, place, "a text in each field (`expected` may be null)")
    if "expected" in wanted and chat.continues:
        raise _broken(file, place, f"another adapter than {chat.adapter}, or null, in `expected`")
    return chat


def _named(file: Path) -> Iterator[tuple[str, object]]:
    """The entries of a file's JSON object."""
    try:
        given = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RamoleError(f"{file} cannot be read as JSON ({error}); restore the file.") from None
    if not isinstance(given, dict):
        raise _broken(file, "the top", "an object with named entries")
    yield from given.items()


def _list(given: object, file: Path, place: str) -> list[object]:
    """A list with something in it."""
    if not isinstance(given, list) or not given:
        raise _broken(file, place, "a list with at least one entry")
    return given


def _texts(given: object, file: Path, place: str) -> tuple[str, ...]:
    """A list of texts, none of them blank."""
    found = _list(given, file, place)
    texts = tuple(text for text in found if isinstance(text, str) and text.strip())
    if len(texts) < len(found):
        raise _broken(file, place, "texts that are not blank")
    return texts


def _broken(file: Path, place: str, expected: str) -> RamoleError:
    """The error for a broken file, in one sentence."""
    return RamoleError(f"{file}, at {place}: expected {expected}; mend or restore the file.")
