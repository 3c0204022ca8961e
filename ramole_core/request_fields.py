"""The schema of a request's fields: kind, range and help, shared by every interface.

A field of `Request` is `Annotated[type, Takes(kind, help, ...)]`. The request reads its own values
with it; a batch's cells, the command line, `/ask` and the docs are derived from the same.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from ramole_core.errors import WrongField
from ramole_core.methods import range_words, read_values
from ramole_core.request_parts import finite, has_half, short

Kind = Literal["text", "word", "whole", "number", "truth", "words", "texts", "numbers", "options"]
WANTED: Mapping[str, str] = {
    "text": "a text",
    "word": "a text",
    "whole": "a whole number",
    "number": "a number",
    "truth": "true or false",
    "options": 'an object, such as {"top": 2}',
}
LISTS = {"words": "word", "texts": "text", "numbers": "number", "parts": "part"}
"""Kinds that are lists, and the kind of an item."""
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Takes:
    """The schema of a field."""

    kind: Kind | Literal["parts"]
    """`word`: a text without spaces around it; `parts`: lists in lists, read by `parts`."""
    help: str
    low: int | float = -math.inf
    high: int | float = math.inf
    above: bool = False
    """True: `low` itself is too low."""
    option: str | None = None
    """Its name as an option of a command; empty: it has none. None: the field's own."""
    parts: Callable[[object], object] | None = None

    def read(self, name: str, value: object) -> object:
        """Return the value, lists as tuples; raises RamoleError (WrongField)."""
        if self.parts is not None:
            return self.parts(value)
        if self.kind in LISTS:
            if isinstance(value, str):
                raise WrongField(
                    name, f"={short(value)} is a string; pass a list, such as {short([value])}."
                )
            if not isinstance(value, Iterable) or isinstance(value, Mapping):
                raise WrongField(name, f"={short(value)}; give a list.")
            kind = LISTS[self.kind]
            return tuple(self._one(kind, f"{name}.{i}", one) for i, one in enumerate(value))
        return self._one(self.kind, name, value)

    def parse(self, name: str, text: str) -> object:
        """Parse a text, such as a cell of a table or a form, for `read`. A list is JSON, or has
        commas, semicolons, bars or spaces between its items; raises RamoleError."""
        word = text.strip()
        if self.kind in ("options", *LISTS) and word.startswith(("[", "{")):
            try:
                return json.loads(word)
            except (ValueError, RecursionError):
                what = "list" if word.startswith("[") else "object"
                raise WrongField(name, f"={short(text)}; this {what} is not JSON.") from None
        match self.kind:
            case "whole" | "number":
                return _number(word, int if self.kind == "whole" else float)
            case "truth":
                return TRUTHS.get(word.lower(), text)
            case "words" | "numbers" | "options":
                items = [one for one in re.split(r"[,;|\s]+", word) if one]
                if self.kind == "options":
                    return read_values(items)
                return items if self.kind == "words" else [_number(one, float) for one in items]
            case "texts":
                return [text.replace("\\n", "\n")]
            case "word":
                return word
        return text

    @property
    def range(self) -> str:
        """` of at least 1`: the numbers that the field takes, in words."""
        if math.isfinite(self.high) and self.high >= 2**62:
            return " of 64 bits"
        if self.above:
            return f" above {self.low:g} and at most {self.high:g}"
        return range_words(self.low, self.high)

    def _one(self, kind: str, name: str, value: object) -> object:
        wrong = f"={short(value)}; give {WANTED[kind]}"
        if kind in ("text", "word") and isinstance(value, str):
            if has_half(value):
                what = "has half a character in it; send whole ones"
                raise WrongField(name, f"={short(value)} {what}.")
            if value or "." not in name:
                return value
            wrong = "='' is empty; leave it out"
        if kind == "truth" and isinstance(value, bool):
            return value
        if kind == "options" and isinstance(value, Mapping) and all(map(_is_option, value.items())):
            return dict(value)
        exact = {"whole": Integral, "number": Real}.get(kind)  # numpy's too
        if exact and isinstance(value, exact) and not isinstance(value, bool):
            number = int(value) if kind == "whole" else _float(value)  # pyright: ignore[reportArgumentType]
            low = number > self.low if self.above else number >= self.low
            if low and number <= self.high and abs(number) < math.inf:
                return number
            finite = ", a finite one" if kind == "number" and not math.isfinite(number) else ""
            wrong += self.range + finite
        raise WrongField(name, f"{wrong}.")


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_option(pair: tuple[object, object]) -> bool:
    name, value = pair
    return isinstance(name, str) and isinstance(value, int | float) and finite(value)


def _number(word: str, kind: type[int] | type[float]) -> object:
    try:
        return kind(word)
    except ValueError:
        return word
