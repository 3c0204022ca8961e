"""Calls that are recorded once and run again, the kernels' among them in one compiled call."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from inspect import unwrap

import numpy as np
from numba import cfunc, types

from ramole_core.kernels.call_args import WORDS
from ramole_core.kernels.code_cache import CACHE, kept_here
from ramole_core.kernels.team import TEAM, Kernel, run_all

_RUN = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)


class Program:
    """Kernel calls with copies of their argument words, and functions between them, in order."""

    def __init__(self):
        self.fault = ""
        """Why it cannot be run again; empty: it can."""
        self.paused = False
        self._kernels: list[Kernel] = []
        self._copies: list[np.ndarray] = []
        self._steps: list[tuple[int, int] | Callable[[], None]] = []
        """Calls [start, end), or a function."""
        self._kept: list[object] = []
        self._at: dict[Kernel, np.ndarray] = {}
        """Calls by kernel, of kernels whose words were replaced."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Pause the recording inside the block, whose work `again` does."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def keep(self, *things: object) -> None:
        """Keep alive, as long as the program, what a kernel's words point into."""
        self._kept += things

    def call(self, kernel: Kernel, words: np.ndarray) -> None:
        """Record a kernel's call with these words, tiles included."""
        if self.paused:
            return
        start = len(self._kernels)
        self._kernels.append(kernel)
        self._copies.append(words.copy())
        last = self._steps[-1] if self._steps else None
        if isinstance(last, tuple):
            self._steps[-1] = last[0], start + 1
        else:
            self._steps.append((start, start + 1))

    def again(self, work: Callable[[], None]) -> None:
        """Record a function to call at this place in every run."""
        self._steps.append(work)

    def close(self) -> None:
        """End the recording."""
        self._words = np.array(self._copies, np.int64).reshape(-1, WORDS)
        self._entries = np.array([kernel.address for kernel in self._kernels], np.int64)

    def point(self, kernel: Kernel, values: Mapping[int, int]) -> None:
        """Set these words in every call of a kernel."""
        at = self._at.get(kernel)
        if at is None:
            found = [n for n, one in enumerate(self._kernels) if one is kernel]
            at = self._at[kernel] = np.array(found, np.int64)
        for word, value in values.items():
            self._words[at, word] = value

    def run(self) -> None:
        """Run all of it, in order; the results lie in the same memory."""
        entries, words = self._entries.ctypes.data, self._words.ctypes.data
        for step in self._steps:
            if isinstance(step, tuple):
                with TEAM.gathered() as team:
                    _runner()(team, entries, words, *step)
            else:
                step()


def _run_all(team, entries, words, start, end):
    run_all(team, entries, words, start, end)


@cache
def _runner():
    with kept_here():
        made = cfunc(types.void(*[types.int64] * 5), nopython=True, cache=CACHE)(unwrap(_run_all))  # pyright: ignore
    return _RUN(int(made.address))
