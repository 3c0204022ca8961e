"""Keys of rank_pattern and alpha_pattern -> the value of a module, with all keys' work bounded.

To PEFT a key is a regular expression, `re.match(rf"(.*\\.)?({key})$", path)`, and the first key of
the file that matches counts. Here all keys are one automaton (an RE2 set), which reads a module's
path once, however many keys there are; what it may cost is measured before it is built.
"""

import re
from collections.abc import Mapping

import re2

from ramole_core.errors import AdapterRefused
from ramole_core.pool.strict_json import shorten

MAX_KEYS, MAX_KEY = 4096, 512
MAX_STEPS = 2**18
"""Instructions of all keys' programs together; the name of a module takes about 50."""
MAX_SYMBOLS = 2**15
"""Characters of all keys together that are more than names: a class that takes long to parse may
give a short program."""
_KEY_MEMORY, _SET_MEMORY = 2**20, 2**25
"""Bytes for one key's program, and for the automaton with the states that it remembers."""
_NAME = re.compile(r"(?:\w|-|\\?\.)+", re.A)
_BY_PROPERTY = re.compile(r"\\[pP]")
"""RE2 alone has these classes, the slowest to compile; Python, and so PEFT, cannot read them."""


class Patterns:
    """The keys of one field with their values."""

    def __init__(self, field: str, values: Mapping[str, float], *, file: str):
        """`values` by key, in the file's order. Raises AdapterRefused, naming `field` of `file`,
        for a key that google-re2 cannot compile, and for keys that need too much work."""
        self._where = f"{file} has {len(values)} keys in {field}"
        self._values = tuple(values.values())
        steps = symbols = 0
        for key in values:
            try:
                steps += _steps(key)
            except re2.error as error:
                raise AdapterRefused(
                    f"{file} has the key {shorten(key)} in {field}, which google-re2 cannot "
                    f"compile ({_reason(error)}); use module names or expressions without "
                    "look-around and back-references."
                ) from None
            symbols += 0 if _NAME.fullmatch(key) else len(key)
            if steps > MAX_STEPS or symbols > MAX_SYMBOLS:
                raise self._too_much()
        self._set = re2.Set.MatchSet(_options(_SET_MEMORY))
        for key in values:
            self._set.Add(_whole(key))
        self._last = self._set.Add(b"")  # matches every path, unless memory runs out
        try:
            self._set.Compile()
        except re2.error:
            raise self._too_much() from None

    def value_of(self, path: str) -> float | None:
        """Return the value of the first key that matches a module's path; None where none does."""
        if not self._values:
            return None
        found = self._set.Match(path.encode()) or ()
        if self._last not in found:
            raise self._too_much()
        first = min(found)
        return None if first == self._last else self._values[first]

    def _too_much(self) -> AdapterRefused:
        return AdapterRefused(
            f"{self._where} that ask for more work than is done for one upload; use plain names of "
            "modules, or fewer and simpler expressions."
        )


def _whole(key: str) -> bytes:
    return rf"(.*\.)?({key})$".encode()


def _steps(key: str) -> int:
    """Instructions of the key's program; raises re2.error."""
    if len(key) > MAX_KEY:
        raise re2.error(f"{len(key)} characters, at most {MAX_KEY} are taken")
    if not key.isascii():
        raise re2.error("it has letters that no module's name has")
    if _BY_PROPERTY.search(key):
        raise re2.error("it has a class \\p, which PEFT cannot read either")
    return re2.compile(_whole(key), _options(_KEY_MEMORY)).programsize


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    options.encoding = re2.Options.Encoding.LATIN1  # a dot is one step, not the ten of UTF-8
    return options


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
