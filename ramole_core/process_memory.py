"""Memory of this process: fewer heaps, and no garbage collection of long-lived objects.

glibc gives nearly every thread a heap of its own, up to eight a core, and memory freed in one is
not reused in another. A server whose threads take turns at the same work holds the maximum of each.
"""

import ctypes
import gc
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HEAPS = 2
VARIABLE = {"MALLOC_ARENA_MAX": str(HEAPS)}
"""The same, set for a process before it begins: for one whose threads a library starts."""
_M_ARENA_MAX = -8  # malloc.h


def keep_few_heaps(most: int = HEAPS) -> bool:
    """Limit the heaps, before threads begin; False where the C library has no such option."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, most))


def give_back() -> None:
    """Return what was freed to the system; glibc keeps some of it for later."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


_guard, _postponed = threading.Lock(), 0


@contextmanager
def postponed_collection() -> Iterator[None]:
    """Collect no garbage inside: a fifth of the time in which libraries are imported goes into
    searches through what stays. Several may overlap; the last one that ends collects again."""
    global _postponed
    with _guard:
        _postponed += 1
        gc.disable()
    try:
        yield
    finally:
        with _guard:
            _postponed -= 1
            if not _postponed:
                gc.enable()


def settle() -> None:
    """Exempt all loaded objects from garbage collection; call it once all is loaded.

    The objects of libraries and model are 800,000 in a page's process. Each search through them
    takes half a second, in which no request is answered.
    """
    gc.collect()
    gc.freeze()
