"""Few heaps for many threads: what one thread gave back is there for the next one.

glibc gives nearly every thread a heap of its own, up to eight a core, and what was freed in one is
of no use in another. A server whose threads take turns at the same work holds the most that each
of them ever held.
"""

import ctypes
import platform

FEW = 2
VARIABLE = {"MALLOC_ARENA_MAX": str(FEW)}
"""The same, said to a process before it begins: for one whose threads are somebody else's."""
_M_ARENA_MAX = -8  # malloc.h


def keep_few_heaps(most: int = FEW) -> bool:
    """Call it before threads begin; False where the C library has no such heaps."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, most))
