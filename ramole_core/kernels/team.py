"""Run kernels on several threads: the caller takes tiles, and idle helpers take others.

The caller never waits for a thread that has not come: when the tiles are taken, it closes the call
and waits only for those that are in the middle of one. So a busy machine costs a helper's share and
not, at every call, the time until the system lets a helper run (as OpenMP's barriers do: measured
60 times as long beside another program). Which thread takes which tile changes no number.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from inspect import unwrap

import numpy as np
from llvmlite import ir
from numba import cfunc, types

from ramole_core.kernels.call_args import (
    CACHE_LINE,
    COUNTS,
    HELPER,
    LOCAL_COUNTS,
    OWN,
    TILES,
    WATCHING,
    WORDS,
    array,
    at,
    words_at,
)
from ramole_core.kernels.code_cache import CACHE, kept_here
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.threads import thread_count

CALL, ENTRY, ARGUMENT, HELPING, TAKEN = 0, 8, 16, 24, 32
"""Words of a team, each in a cache line of its own: the number of the call, odd while it is open;
the kernel and its words; how many help; the call's two counts of taken tiles."""
MAX_SPINS = 200_000
"""Polls for a next call before a helper sleeps; about two milliseconds."""
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Kernel:
    """A kernel: a function of one call's words that takes tiles until none is left."""

    def __init__(self, function: Callable):
        self._function = unwrap(function)
        self.__doc__ = function.__doc__

    @cached_property
    def _entry(self):
        """The compiled function, from numba's cache after the first time."""
        signature = types.void(types.int64)  # an address
        with kept_here():
            return cfunc(signature, nopython=True, cache=CACHE)(self._function)  # pyright: ignore

    @cached_property
    def address(self) -> int:
        """Address of its code; compiled on first use."""
        return int(self._entry.address)

    @cached_property
    def _alone(self) -> Callable[[int], None]:
        return _ENTRY(self.address)

    def compile(self) -> None:
        """Compile now, ahead of the first request."""
        _ = self.address

    def run(self, words: np.ndarray, tiles: int) -> None:
        """Run the tiles; `words` is an int64 array of WORDS that no other call uses meanwhile."""
        words[TILES], words[OWN] = tiles, -(-tiles // thread_count())
        if (watching := WATCHING.one) is not None:
            watching.call(self, words)
        address = words.ctypes.data
        if tiles == 1 or not TEAM.run(self.address, address):
            self._run_alone(words, address)

    def run_one(self, words: np.ndarray, address: int) -> None:
        """Run a single tile; `address` is that of the words, whose TILES is 1."""
        if (watching := WATCHING.one) is not None:
            watching.call(self, words)
        self._run_alone(words, address)

    def _run_alone(self, words: np.ndarray, address: int) -> None:
        words[COUNTS] = address + 8 * LOCAL_COUNTS
        words[LOCAL_COUNTS] = words[LOCAL_COUNTS + CACHE_LINE // 8] = 0
        self._alone(address)


class Team:
    """As many threads as PyTorch has, the caller's included; made when they are first needed."""

    def __init__(self):
        self._lock = threading.Lock()
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # threads do not come along

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._words = np.zeros(64, np.int64)
        self._helpers: list[_Helper] = []
        self._lead: Callable[[int, int, int], None] | None = None

    def run(self, entry: int, argument: int) -> bool:
        """Run a kernel with the helpers; False: there are none, or another call runs."""
        with self.gathered() as team:
            if team:
                if self._lead is None:
                    self._lead = _LEAD(_lead_address())
                self._lead(team, entry, argument)
        return bool(team)

    @contextmanager
    def gathered(self) -> Iterator[int]:
        """Hold all helpers awake inside the block: yields the address of the team's words for
        `lead`; 0: no helpers, or another caller holds them."""
        helpers = thread_count() - 1
        if helpers < 1 or not self._lock.acquire(blocking=False):
            yield 0
            return
        try:
            while len(self._helpers) < helpers:
                self._helpers.append(_Helper(self._words))
            for helper in self._helpers:
                helper.wake()
            yield self._words.ctypes.data
        finally:
            self._lock.release()


class _Helper:
    """A helper thread, which sleeps after a while without calls."""

    def __init__(self, words: np.ndarray):
        self._words, self._called = words, threading.Event()
        self._awake = False
        threading.Thread(target=self._serve, name="kernels", daemon=True).start()

    def wake(self) -> None:
        """Wake the helper for a call; free where it is awake."""
        if not self._awake:
            self._awake = True
            self._called.set()

    def _serve(self) -> None:
        while True:
            self._called.wait()
            self._called.clear()
            _help(self._words)
            self._awake = False


# --- compiled -------------------------------------------------------------------------------

INT = ir.IntType(64)


@instructions
def _add(context, address, number):
    """Atomic fetch-and-add of a word."""

    def build(context, builder, signature, args):
        place = builder.inttoptr(args[0], INT.as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), build


@instructions
def _load(context, address):
    """Atomic load of a word."""

    def build(context, builder, signature, args):
        place = builder.inttoptr(args[0], INT.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), build


@instructions
def _run(context, entry, argument):
    """Call the kernel at an address."""

    def build(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [INT])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return ir.Constant(INT, 0)

    return types.int64(types.int64, types.int64), build


@instructions
def _pause(context):
    """Pause for a moment, in favour of the core's other threads."""

    def build(context, builder, signature, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        known = builder.module.globals.get("sched_yield")
        builder.call(known or ir.Function(builder.module, kind, "sched_yield"), [])
        return ir.Constant(INT, 0)

    return types.int64(), build


@kernel()
def lead(words, entry, argument):
    """Run one call, from its opening to the last helper's end."""
    team = array(at(words), (64,), np.int64)
    team[ENTRY], team[ARGUMENT] = entry, argument
    team[TAKEN] = team[TAKEN + CACHE_LINE // 8] = 0
    words_at(argument)[COUNTS] = words + 8 * TAKEN
    _add(words + 8 * CALL, 1)
    _run(entry, argument)
    _add(words + 8 * CALL, 1)
    looks = 0
    while _load(words + 8 * HELPING) != 0:
        looks += 1
        if looks % 1000 == 0:
            _pause()


@kernel(from_python=True)
def _help(team):
    """Help with every call that is open, until none has come for a while."""
    words = team.ctypes.data
    known, looks = np.int64(0), 0
    while looks < MAX_SPINS:
        call = _load(words + 8 * CALL)
        if call == known or call % 2 == 0:
            looks += 1
            if looks % 1000 == 0:
                _pause()
            continue
        _add(words + 8 * HELPING, 1)
        if _load(words + 8 * CALL) == call:  # still open, so its caller waits for us
            _run(team[ENTRY], team[ARGUMENT] + HELPER)
        _add(words + 8 * HELPING, -1)
        known, looks = call, 0


def _lead(words, entry, argument):
    lead(words, entry, argument)


@kernel()
def run_all(team, entries, words, start, end):
    """Run the calls [start, end) of a program."""
    huge = 1 << 40
    entry = array(at(entries), (huge,), np.int64)
    for n in range(start, end):
        argument = words + 8 * WORDS * n
        call = array(at(argument), (WORDS,), np.int64)
        if team == 0 or call[TILES] == 1:
            call[COUNTS] = argument + 8 * LOCAL_COUNTS
            call[LOCAL_COUNTS] = call[LOCAL_COUNTS + CACHE_LINE // 8] = 0
            _run(entry[n], argument)
        else:
            lead(team, entry[n], argument)


_LEAD = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@cache
def _lead_address() -> int:
    signature = types.void(types.int64, types.int64, types.int64)
    with kept_here():
        return int(cfunc(signature, nopython=True, cache=CACHE)(unwrap(_lead)).address)  # pyright: ignore


TEAM = Team()
