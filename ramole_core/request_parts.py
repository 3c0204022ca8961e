"""Parts of a request that are lists: earlier turns, examples, tokens given, what is off or moved.

Each is read into tuples once, when the request is made; what cannot be read is one sentence.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, SupportsIndex

from ramole_core.errors import RamoleError, WrongField

MAX_QUOTED = 80
"""Characters of a value that an error quotes."""
MAX_EXAMPLES = 32
MAX_EXAMPLE = 8000
"""Characters of an input, and of a target."""
TOKENS = 2**31
"""Upper bound of token ids, beyond any vocabulary; tokenizers overflow at larger numbers."""
TURN: Final = "turn"
"""In place of a position: the whole turn that is answered."""


class Exchange(NamedTuple):
    """One earlier turn of a chat."""

    user: str
    assistant: str
    adapters: tuple[str, ...] | None = None
    """None: those of the request; empty: the base alone."""


class Example(NamedTuple):
    """One pair that a method finds its weights on."""

    input: str
    target: str


class Off(NamedTuple):
    """One thing that is switched off; None: all of them."""

    adapter: str | None
    layer: int | None
    module: str | None
    """Its short name, as in a trace."""
    start: int | Literal["turn"] | None = None
    """Position from which on; None: the last token that is given. TURN: the adapter is left out of
    the turn, as though it had not been found."""


def read_history(given: object) -> tuple[Exchange, ...]:
    """The earlier turns of a request; raises RamoleError."""
    wanted = "a list of (user, assistant), such as [('Hello', 'Hi.')]"
    return tuple(_exchange(n, one) for n, one in enumerate(_listed("history", given, wanted), 1))


def _exchange(n: int, one: object) -> Exchange:
    parts = _parts(one)
    if not 2 <= len(parts) <= 3:
        raise RamoleError(
            f"Turn {n} of history is {_short(one)}; give (user, assistant), or (user, assistant, "
            "adapters)."
        )
    user, assistant, adapters = (*parts, None)[:3]
    if not (isinstance(user, str) and isinstance(assistant, str)):
        raise RamoleError(
            f"Turn {n} of history is {_short(one)}; give what both sides said as strings."
        )
    if not user.strip():
        raise RamoleError(f"Turn {n} of history has an empty user's text; leave the turn out.")
    _refuse_halves("history", f"turn {n}", user, assistant)
    if adapters is None:
        return Exchange(user, assistant)
    what = f"The list of adapters of turn {n} of history"
    names = _listed(what, adapters, "the adapters' names, or None for those of the request")
    named = tuple(name for name in names if isinstance(name, str))
    if len(named) < len(names):
        raise RamoleError(f"{what} is {_short(adapters)}; give their names.")
    if len(set(named)) < len(named):
        raise RamoleError(f"{what} names one twice: {_short(list(named))}.")
    _refuse_halves("history", f"turn {n}", *named)
    return Exchange(user, assistant, named)


def read_examples(given: object) -> tuple[Example, ...]:
    """The (input, target) pairs of a request; raises RamoleError."""
    wanted = "a list of (input, target), such as [('2 + 2?', '4')]"
    pairs = _listed("examples", given, wanted)
    if len(pairs) > MAX_EXAMPLES:
        raise RamoleError(
            f"examples has more than {MAX_EXAMPLES} pairs, the most that is read; about 5 will do."
        )
    return tuple(_example(n, one) for n, one in enumerate(pairs, 1))


def read_example_lines(text: str) -> tuple[Example, ...]:
    """Pairs in a text, one a line: `{"inputs": ..., "targets": ...}` as the rows of a task are, or
    `input => target`; raises RamoleError."""
    found: list[object] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        pair: object = None
        if line.lstrip().startswith("{"):
            try:
                pair = json.loads(line)
            except (ValueError, RecursionError):
                pair = None
            good = isinstance(pair, dict) and {"inputs", "targets"} <= pair.keys()
        else:
            before, arrow, behind = line.rpartition("=>")
            pair, good = (before.strip(), behind.strip()), bool(arrow)
        if not good:
            raise RamoleError(
                f"Line {number} of the examples is {_short(line.strip())}; write "
                '{"inputs": "...", "targets": "..."} or input => target.'
            )
        found.append(pair)
        if len(found) > MAX_EXAMPLES:
            break  # that there are too many is all that is said
    return read_examples(found)


def _example(n: int, one: object) -> Example:
    if isinstance(one, Mapping) and {"inputs", "targets"} <= one.keys():  # as rows of a task are
        one = (one["inputs"], one["targets"])
    parts = _parts(one)
    if len(parts) != 2:
        raise RamoleError(f"Pair {n} of examples is {_short(one)}; give (input, target).")
    for text, name in zip(parts, ("input", "target"), strict=True):
        if not isinstance(text, str):
            raise RamoleError(f"Pair {n} of examples has {_short(text)} as {name}; give a text.")
        if not text.strip():
            raise RamoleError(f"Pair {n} of examples has an empty {name}; leave the pair out.")
        if len(text) > MAX_EXAMPLE:
            raise RamoleError(
                f"Pair {n} of examples: its {name} has {len(text)} characters, and "
                f"{MAX_EXAMPLE} is the most; shorten it."
            )
    text, target = parts
    assert isinstance(text, str) and isinstance(target, str)
    _refuse_halves("examples", f"pair {n}", text, target)
    return Example(text, target)


def read_tokens(name: str, given: object) -> tuple[int, ...]:
    """The token ids of the field of that name; raises RamoleError."""
    wanted = "a list of token ids, such as a trace has"
    ids = _listed(name, given, wanted)
    found = [read_whole(one) for one in ids]
    for one, token in zip(ids, found, strict=True):
        if token is None or not 0 <= token < TOKENS:
            raise RamoleError(f"{name} has {_short(one)}; give {wanted}.")
    return tuple(token for token in found if token is not None)


def read_messages(given: object) -> tuple[tuple[str, str], ...]:
    """The messages of a request, (role, text) each; raises RamoleError."""
    wanted = "a list of (role, text), such as [('user', 'Hello')]"
    found = []
    for n, one in enumerate(_listed("messages", given, wanted), 1):
        match _parts(one):
            case (str() as role, str() as text):
                _refuse_halves("messages", f"message {n}", role, text)
                found.append((role, text))
            case _:
                raise RamoleError(f"Message {n} of messages is {_short(one)}; give (role, text).")
    return tuple(found)


def read_without(given: object) -> tuple[Off, ...]:
    """Return what a request switches off; raises RamoleError."""
    wanted = "a list of (adapter, layer, module), None for all, such as [(None, 3, None)]"
    return tuple(_off(one) for one in _listed("without", given, wanted))


def _off(one: object) -> Off:
    def refuse(what: str) -> RamoleError:
        return RamoleError(f"without has {_short(one)}; {what}.")

    parts = _parts(one)
    if not 3 <= len(parts) <= 4:
        raise refuse("give (adapter, layer, module) or (adapter, layer, module, start)")
    adapter, layer, module, start = (*parts, None)[:4]
    if not (adapter is None or isinstance(adapter, str)):
        raise refuse(f"{_short(adapter)} is not the name of an adapter, or None for all")
    if not (module is None or isinstance(module, str)):
        raise refuse(f"{_short(module)} is not the name of a module, or None for all")
    if layer is not None and read_whole(layer) is None:
        raise refuse(f"{_short(layer)} is not the number of a layer, or None for all")
    if start == TURN:
        if layer is not None or module is not None:
            raise refuse(f"{TURN!r} leaves an adapter out as a whole; give no layer and no module")
        return Off(adapter, None, None, TURN)
    position = read_whole(start)
    if start is not None and (position is None or position < 0):
        raise refuse(
            f"{_short(start)} is not a position; they count from 0, the prompt's first token, and "
            f"{TURN!r} leaves an adapter out of the whole turn"
        )
    return Off(adapter, read_whole(layer), module, position)


def read_later_weights(given: object) -> dict[str, float]:
    """Weights by adapter from the last given token on; raises RamoleError."""
    wanted = "a mapping from adapters' names to weights, such as {'sums': 0.5}"
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RamoleError(f"later_weights={_short(given)}; pass {wanted}.")
    found: dict[str, float] = {}
    for name, weight in given.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not isinstance(name, str) or not number or not finite(weight):
            raise RamoleError(
                f"later_weights has {_short(name)}: {_short(weight)}; pass {wanted}, all finite."
            )
        found[name] = float(weight)
    return found


def read_whole(value: object) -> int | None:
    """A whole number of any kind, numpy's too; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    return value.__index__()


def finite(number: float) -> bool:
    """Whether a number is finite as a float, whose range a whole number may exceed."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def has_half(text: str) -> bool:
    """Whether a text has half a character (a surrogate) in it, which UTF-8 has no bytes for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse_halves(name: str, where: str, *texts: str) -> None:
    if any(map(has_half, texts)):
        raise WrongField(name, f" has half a character in {where}; send whole ones.")


def _parts(one: object) -> tuple[object, ...]:
    return tuple(one) if isinstance(one, Sequence) and not isinstance(one, str) else ()


def _listed(name: str, given: object, wanted: str) -> tuple[object, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        what = " is a string" if isinstance(given, str) else ""
        raise RamoleError(f"{name}={_short(given)}{what}; pass {wanted}.")
    return tuple(given)


def short(value: object, most: int = 60) -> str:
    """Return a value as an error quotes it."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _short(value: object) -> str:
    return short(value, MAX_QUOTED)
