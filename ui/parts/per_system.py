"""What the page keeps of a system: one object of a class, such as its quota of uploads."""

import threading
from collections.abc import Callable
from typing import TypeVar

from ramole_core import Ramole

T = TypeVar("T")
_lock = threading.RLock()


def one_of(make: Callable[[Ramole], T], ramole: Ramole) -> T:
    """`make(ramole)`, built at the first call with this pair; thread-safe.

    It is an attribute of the system: as it holds the system, a WeakKeyDictionary would free
    neither.
    """
    with _lock:
        kept = vars(ramole).setdefault("_of_the_page", {})
        if make not in kept:
            kept[make] = make(ramole)
        return kept[make]
