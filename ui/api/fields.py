"""The fields of each call, checked before anything runs; what is wrong is one sentence.

Gradio passes on whatever JSON a client sends, so nothing about a call is believed.
"""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ramole_core import DEFAULT_METHOD, RamoleError, Request

if TYPE_CHECKING:
    from ramole_core import Ramole

LONGEST_PROMPT = 100_000
MOST_PROMPTS = 64
"""Prompts of one batch call."""
MOST_NAMES = 32
MOST_PARTS = 4_000
"""Texts, names and numbers in one list of `LISTS`, all counted."""
LISTS = ("history", "prefix_ids", "without", "later_weights", "examples")
"""Fields that the request itself reads, and refuses in its own words."""
WANTED = f"Input should be a JSON object of at most {MOST_NAMES} names with numbers, true or false"

Text = Annotated[str, Field(strict=True, max_length=LONGEST_PROMPT)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=MOST_NAMES)]
Fields = TypeVar("Fields", bound=BaseModel)


class WrongField(RamoleError):
    """A field that cannot be read; says which."""

    def __init__(self, field: str, rest: str):
        super().__init__(f"{field}{rest}")
        self.field, self.rest = field, rest
        """The field's place in the call, and the sentence after it."""


class Ask(BaseModel):
    """One question; the defaults are those of `Request`."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text
    method: Name = DEFAULT_METHOD
    k: int = Field(3, ge=1, le=MOST_NAMES)
    adapters: Names | None = None
    weights: list[float] | None = Field(None, max_length=MOST_NAMES)
    exclude: Names | None = None
    max_new_tokens: int = Field(128, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, max_length=16
    )
    system: Text | None = None
    raw: bool = False
    options: dict[Name, bool | int | float] | None = None
    history: Any = None
    drop_turns: bool = False
    abstain: bool | None = None
    prefix_ids: Any = None
    without: Any = None
    later_weights: Any = None
    examples: Any = None
    mix: Name | None = None
    effects: bool = False

    @field_validator("k", "max_new_tokens", "seed", "temperature", "top_p", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("Input should be a number")
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _an_object_of_numbers(cls, value: object) -> object:
        if isinstance(value, str):
            value = _json(value) if value.strip() else None
        good = (
            isinstance(value, dict)
            and len(value) <= MOST_NAMES
            and all(map(_finite, value.values()))
        )
        if value is not None and not good:
            raise ValueError(WANTED)
        return value

    @field_validator(*LISTS)
    @classmethod
    def _of_bounded_size(cls, value: object) -> object:
        count, length = 0, 0
        for part in _parts(value):
            count, length = count + 1, length + (len(part) if isinstance(part, str) else 0)
            if count > MOST_PARTS:
                raise ValueError(f"Input has more than {MOST_PARTS} parts")
        if length > LONGEST_PROMPT:
            raise ValueError(f"Input has {length} characters, and {LONGEST_PROMPT} is the most")
        return value

    def request(self, owner: str | None, *, trace: bool = False) -> Request:
        """For the engine; contradictions raise RamoleError."""
        read = {"exclude", "stop", "adapters", "weights", "options", *LISTS}
        said = self.model_dump(exclude=read)
        for name in LISTS:
            if (given := getattr(self, name)) is not None:
                said[name] = given
        if self.options:
            said["options"] = self.options
        return Request(
            **said,
            adapters=None if self.adapters is None else tuple(self.adapters),
            weights=None if self.weights is None else tuple(self.weights),
            exclude=tuple(self.exclude or ()),
            stop=tuple(self.stop or ()),
            trace=trace,
            owner=owner,
        )


class Search(BaseModel):
    """What `/retrieve` is asked."""

    text: Text
    k: int = Field(3, ge=1, le=1000)
    exclude: Names | None = None


class Upload(BaseModel):
    """What `/add_adapter` is told beside the file."""

    name: Annotated[str, Field(strict=True, max_length=200)] | None = None
    examples: list[Annotated[str, Field(strict=True, max_length=8000)]] | None = Field(
        None, max_length=1000
    )


class Named(BaseModel):
    """An adapter by its name."""

    name: Name


class StoredFile(BaseModel):
    """A file as Gradio hands it on: only its path in the cache of uploads is used."""

    path: Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
    meta: dict[Literal["_type"], Literal["gradio.FileData"]]


def checked(kind: type[Fields], **said: object) -> Fields:
    """The fields, or RamoleError with one sentence that names the wrong one."""
    try:
        return kind(**said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the call"
        wrong = first["msg"].removeprefix("Value error, ")
        raise WrongField(place, f"={_short(first['input'])}: {wrong}.") from None


def refuse_unknown_options(ramole: "Ramole", asked: Ask) -> None:
    """RamoleError where the method has no option of a name that was given."""
    rows = {row.name: row for row in ramole.methods()} if asked.options else {}
    if asked.method not in rows:
        return  # the request itself refuses a method that is not there
    known = [option.name for option in rows[asked.method].options]
    for name in asked.options or ():
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise RamoleError(f"{asked.method} has no option {name!r}; {has}.")


def stored_path(file: object) -> str:
    """Where Gradio put an uploaded file; RamoleError where `file` is anything else.

    A path that the caller typed is refused: only what went through Gradio's upload is a file here.
    """
    try:
        return StoredFile.model_validate(file).path
    except ValidationError:
        raise RamoleError(
            "file is not an uploaded file; pass gradio_client.handle_file(path), or over MCP a "
            "data: URL."
        ) from None


def _parts(value: object) -> Iterator[object]:
    """All that is inside lists and objects, however deep."""
    left = [value]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(WANTED) from None


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
