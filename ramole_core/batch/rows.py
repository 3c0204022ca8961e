"""The rows of a batch, good and bad, and a server's limits."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from ramole_core.request import DEFAULTS, FIELDS, Request

Kind = Literal["jsonl", "csv", "lines"]
DIGEST_FIELDS = (
    "prompt", "method", "k", "adapters", "weights", "exclude", "max_new_tokens", "temperature",
    "top_p", "seed", "stop", "ignore_eos", "system", "raw",
)  # fmt: skip
"""The fields that every digest has; of those that requests were given later, only what is said, so
that an older row keeps its digest."""


@dataclass(frozen=True)
class BatchLimits:
    """A server's limits; None: unlimited."""

    rows: int | None = None
    characters: int | None = None
    """Characters of one prompt, its earlier turns counted."""
    adapters: int | None = None
    """Adapters of one row, named or retrieved."""
    columns: int | None = None
    """Of all rows together that are merely carried along: a csv has each of them in every row."""


@dataclass(frozen=True)
class BatchRow:
    """One valid row."""

    index: int
    """Place among the rows of the file, bad ones counted, from 0."""
    line: int
    """Its first line in the file, from 1."""
    request: Request
    id: str | int | None = None
    """The row's own name, if it has one."""
    extra: dict[str, object] = field(default_factory=dict)
    """Columns that no request has."""

    @property
    def digest(self) -> str:
        """16 hex digits of a SHA-256 of all that decides the answer, without the owner."""
        said = {
            name: value
            for name, value in asdict(self.request).items()
            if name in FIELDS and (name in DIGEST_FIELDS or value not in (DEFAULTS[name], {}))
        }
        text = json.dumps([self.id, said], sort_keys=True, default=list)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class BadRow:
    """One invalid row, and why."""

    index: int
    line: int
    sentence: str
    text: str = ""
    """Beginning of the row."""


@dataclass(frozen=True)
class Batch:
    """A file's rows, good and bad."""

    kind: Kind
    rows: tuple[BatchRow, ...]
    bad: tuple[BadRow, ...]
    unused: tuple[str, ...]
    """Columns that are carried along, in order of appearance."""


def beginning(value: object) -> str:
    """The first 80 characters of a row, on one line: what `BadRow.text` shows of it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return text if len(text) <= 80 else text[:79] + "…"
