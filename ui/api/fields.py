"""The fields of each call, checked before anything runs; errors are one sentence.

Gradio passes on whatever JSON a client sends, so every field is checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ramole_core import (
    MAX_EXAMPLE,
    Ramole,
    RamoleError,
    Request,
    WrongField as WrongField,
    read_request,
)

MAX_PROMPT = 100_000
MAX_PROMPTS = 64
"""Prompts of one batch call."""
MAX_NAMES = 32
MAX_PARTS = 4_000
"""Texts, names and numbers in one field, all counted."""
COUNTED = ("adapters", "weights", "exclude", "options", "stop")
"""Lists and objects of at most MAX_NAMES."""

Text = Annotated[str, Field(strict=True, max_length=MAX_PROMPT)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES)]
Fields = TypeVar("Fields")


def read_ask(
    ramole: Ramole, said: Mapping[str, object], *, owner: str | None, trace: bool = False
) -> Request:
    """Return the request of the given fields, within what a call may send; raises RamoleError
    (WrongField where one field is wrong), also for an option that the method has not."""
    for name, value in said.items():
        _bounded(name, value)
    asked = read_request(said)
    rows = {row.name: row for row in ramole.methods()} if asked.options else {}
    if asked.method in rows:  # the system refuses a method that is not there
        known = [option.name for option in rows[asked.method].options]
        for name in asked.options or ():
            if name not in known:
                has = f"its options are {', '.join(known)}" if known else "it has none"
                raise RamoleError(f"{asked.method} has no option {name!r}; {has}.")
    return replace(asked, owner=owner, trace=trace)


class RetrieveFields(BaseModel):
    """The fields of `/retrieve`."""

    text: Text
    k: int = Field(3, ge=1, le=1000)
    exclude: Names | None = None


class UploadFields(BaseModel):
    """The fields of `/add_adapter` beside the file."""

    name: Annotated[str, Field(strict=True, max_length=200)] | None = None
    examples: list[Annotated[str, Field(strict=True, max_length=MAX_EXAMPLE)]] | None = Field(
        None, max_length=1000
    )


class NamedFields(BaseModel):
    """An adapter by its name."""

    name: Name


class StoredFile(BaseModel):
    """A file as Gradio passes it: only its path in the cache of uploads is used."""

    path: Annotated[str, Field(strict=True, min_length=1, max_length=4096)]
    meta: dict[Literal["_type"], Literal["gradio.FileData"]]


def checked(kind: type[Fields], /, **said: object) -> Fields:
    """The fields, or RamoleError with one sentence that names the wrong one."""
    try:
        return kind(**said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the call"
        wrong = first["msg"].removeprefix("Value error, ")
        raise WrongField(place, f"={short(first['input'])}: {wrong}.") from None


def stored_path(file: object) -> str:
    """The path of an uploaded file; RamoleError where `file` is anything else.

    A path that the caller typed is refused: only what went through Gradio's upload is a file here.
    """
    try:
        return StoredFile.model_validate(file).path
    except ValidationError:
        raise RamoleError(
            "file is not an uploaded file; pass gradio_client.handle_file(path), or over MCP a "
            "data: URL."
        ) from None


def _bounded(name: str, value: object) -> None:
    """Raise WrongField for more than a call may send in one field."""
    count, length = 0, 0
    for part in _parts(value):
        count, length = count + 1, length + (len(part) if isinstance(part, str) else 0)
        if count > MAX_PARTS:
            raise WrongField(name, f"={short(value)} has more than {MAX_PARTS} parts; send fewer.")
    if length > MAX_PROMPT:
        most = f"send at most {MAX_PROMPT} characters"
        raise WrongField(name, f"={short(value)} has {length} characters; {most}.")
    many = isinstance(value, list | dict) and name in COUNTED and len(value) > MAX_NAMES
    if many or (name == "k" and isinstance(value, int) and value > MAX_NAMES):
        most = f"{MAX_NAMES} is the most that one call may have"
        raise WrongField(name, f"={short(value)}, and {most}.")


def _parts(value: object) -> Iterator[object]:
    """Yield all items inside lists and objects, at any depth."""
    left = [value]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part


def short(value: object) -> str:
    """Return a value as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
