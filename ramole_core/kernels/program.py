"""A list of kernel calls, run in one compiled call."""

import ctypes
from collections.abc import Mapping
from functools import cache
from inspect import unwrap

import numpy as np
from numba import cfunc, types

from ramole_core.kernels.call_args import WORDS
from ramole_core.kernels.code_cache import CACHE, kept_here
from ramole_core.kernels.team import TEAM, Kernel, run_all

_RUN = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


class Program:
    """Kernel calls with copies of their argument words."""

    def __init__(self, calls: list[tuple[Kernel, np.ndarray]]):
        """Each call's words have its tiles."""
        self._kernels = [kernel for kernel, _ in calls]
        self._words = np.array([words for _, words in calls], np.int64).reshape(-1, WORDS)
        self._entries = np.array([kernel.address for kernel in self._kernels], np.int64)
        self._at: dict[Kernel, np.ndarray] = {}
        """Calls by kernel, of kernels whose words were replaced."""

    def point(self, kernel: Kernel, values: Mapping[int, int]) -> None:
        """Set these words in every call of a kernel."""
        at = self._at.get(kernel)
        if at is None:
            found = [n for n, one in enumerate(self._kernels) if one is kernel]
            at = self._at[kernel] = np.array(found, np.int64)
        for word, value in values.items():
            self._words[at, word] = value

    def run(self, start: int, end: int) -> None:
        """Run the calls [start, end), in order."""
        with TEAM.gathered() as team:
            _runner()(team, self._entries.ctypes.data, self._words.ctypes.data, start, end)


def _run_all(team, entries, words, start, end):
    run_all(team, entries, words, start, end)


@cache
def _runner():
    with kept_here():
        made = cfunc(types.void(*[types.int64] * 5), nopython=True, cache=CACHE)(unwrap(_run_all))  # pyright: ignore
    return _RUN(int(made.address))
