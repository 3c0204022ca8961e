"""JSON objects from untrusted authors: UTF-8, no duplicate keys, bounded recursion."""

import json

from ramole_core.errors import AdapterRefused


class _Twice(ValueError):
    pass


def parse_object(text: bytes, what: str) -> dict[str, object]:
    """The object in `text`; raises AdapterRefused, its sentence beginning with `what`."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_pairs)
    except _Twice as error:
        raise AdapterRefused(
            f"{what} holds the key {str(error)[:120]!r} twice, so it has no single meaning; save "
            "the adapter again."
        ) from None
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(
            f"{what} is not valid JSON ({type(error).__name__}: {str(error)[:120]}); save the "
            "adapter again with PEFT's save_pretrained."
        ) from None
    if not isinstance(value, dict):
        raise AdapterRefused(
            f"{what} holds a {type(value).__name__} where a JSON object was expected; save the "
            "adapter again with PEFT's save_pretrained."
        )
    return value


def shorten(word: object) -> str:
    """`word` as it would be written in Python, for an error's sentence; at most 60 characters."""
    try:
        text = repr(word)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= 60 else text[:57] + "..."


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, object] = {}
    for key, value in pairs:
        if key in seen:
            raise _Twice(key)
        seen[key] = value
    return seen
