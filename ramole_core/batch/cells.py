"""One field of a batch's row: JSON values as they are, csv's text as numbers, lists and truths."""

import json
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from ramole_core.errors import RamoleError
from ramole_core.methods import read_values
from ramole_core.request_parts import (
    read_examples,
    read_history,
    read_later_weights,
    read_prefix,
    read_without,
)

TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def known_column(name: str) -> bool:
    """Whether a column belongs to the request; RamoleError for what looks like a slip."""
    if name in NAMES:
        return True
    if near := get_close_matches(name, NAMES, 1, cutoff=0.8):
        raise RamoleError(f"{name!r} is not known; did you mean {near[0]!r}?")
    return False


def read_field(name: str, value: object) -> object:
    """The value for a `Request`'s field; None where the row does not say. Raises RamoleError."""
    if value is None or (isinstance(value, str) and name != "prompt" and not value.strip()):
        return None
    return FIELDS[name](name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "give a text")
    return value


def _word(name: str, value: object) -> str:
    return _text(name, value).strip()


def _whole(name: str, value: object) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool):
        raise _wrong(name, value, "give a whole number")
    return number


def _seed(name: str, value: object) -> int:
    number = _whole(name, value)
    if not 0 <= number < 2**63:
        raise _wrong(name, value, "give a whole number from 0 to 2^63 - 1")
    return number


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise _wrong(name, value, "give a number")
    return float(number)


def _truth(name: str, value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in TRUTHS:
        return TRUTHS[value.strip().lower()]
    if not isinstance(value, bool):
        raise _wrong(name, value, "give true or false")
    return value


def _words(name: str, value: object) -> tuple[str, ...]:
    """Names: a list, or text with `,`, `;`, `|` or spaces between them."""
    items = _items(name, value, r"[,;|\s]+")
    return tuple(_text(f"an item of {name}", item) for item in items)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    return tuple(_number(f"an item of {name}", item) for item in _items(name, value, r"[,;|\s]+"))


def _texts(name: str, value: object) -> tuple[str, ...]:
    """Stop strings: a list, or one text in which `\\n` stands for a line break."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return (value.replace("\\n", "\n"),)
    return tuple(_text(f"an item of {name}", item) for item in _items(name, value, None))


def _options(name: str, value: object) -> dict[str, object]:
    """A method's own: a JSON object, or text such as `top=2 flat=true`."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _wrong(name, value, "this object is not JSON") from None
    if isinstance(value, str):
        return dict(read_values([word for word in re.split(r"[,;|\s]+", value) if word]))
    if not isinstance(value, dict):
        raise _wrong(name, value, 'give an object, such as {"top": 2}')
    return value


def _items(name: str, value: object, between: str | None) -> Sequence[object]:
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise _wrong(name, value, "this list is not JSON") from None
        elif between is not None:
            value = [item for item in re.split(between, value) if item]
    if not isinstance(value, list):
        raise _wrong(name, value, "give a list")
    return value


def _wrong(name: str, value: object, what: str) -> RamoleError:
    text = repr(value)
    return RamoleError(f"{name}={text if len(text) <= 60 else text[:59] + '…'}; {what}.")


FIELDS: dict[str, Callable[[str, object], object]] = {
    "prompt": _text,
    "method": _word,
    "k": _whole,
    "adapters": _words,
    "weights": _numbers,
    "exclude": _words,
    "options": _options,
    "max_new_tokens": _whole,
    "temperature": _number,
    "top_p": _number,
    "seed": _seed,
    "stop": _texts,
    "ignore_eos": _truth,
    "system": _text,
    "raw": _truth,
    "abstain": _truth,
    "examples": lambda name, value: read_examples(value),
    "mix": _word,
    "history": lambda name, value: read_history(value),
    "drop_turns": _truth,
    "prefix_ids": lambda name, value: read_prefix(value),
    "without": lambda name, value: read_without(value),
    "later_weights": lambda name, value: read_later_weights(value),
    "effects": _truth,
}
"""The fields of a `Request` that a row may have, and how each is read."""
JSON_ALONE = ("examples", "history", "drop_turns", "prefix_ids", "without", "later_weights")
"""Fields that are lists in lists, or belong to one: csv has no way to write them."""
NAMES = ("id", *FIELDS)
"""The columns that are not merely carried along."""
