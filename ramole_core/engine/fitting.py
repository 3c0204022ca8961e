"""The search for a request's weights: proposed by its method, measured by the engine, cached.

Each step makes one merge with the weights that the method proposes and has one row read the
request's examples under it (`pair_reading.py`), in the same batch as all prompts; the merge goes
with its row. It runs in the caller's thread (`request_stream.py`), which makes the merges, and may
stop between two steps. What a whole search found is remembered, a few numbers, so that a file of
prompts with the same examples searches once; the search uses neither prompt nor earlier turns nor
`without`.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from ramole_core.composition import Candidate, Search, Tried, find_method
from ramole_core.engine.pair_reading import Pair, PairReading
from ramole_core.engine.prompt import Prepared, Turn
from ramole_core.errors import RamoleError, fault_of
from ramole_core.methods import complete_options
from ramole_core.request import Fitting, Request

MAX_CACHED = 256
"""Searches whose results are cached."""


def check_turns(prepared: Prepared) -> None:
    """Raise RamoleError where an earlier turn has adapters that no weights are found for."""
    mine = [one.name for one in prepared.candidates]
    for n, turn in enumerate(prepared.turns[:-1], 1):
        names = [one.name for one in turn.candidates]
        if names and names != mine:
            raise RamoleError(
                f"Turn {n} of history has {', '.join(names)}, but weights are found for "
                f"{', '.join(mine)}; name the same adapters for all turns, or ask without history."
            )


def weighted(request: Request, names: Sequence[str], weights: Sequence[float]) -> Request:
    """The request with these weights in the place of its examples."""
    said = {"adapters": tuple(names), "weights": tuple(weights), "examples": ()}
    return replace(request, **said, exclude=(), abstain=None)


@dataclass(frozen=True)
class Fitted:
    """The result of a completed search."""

    best: Tried
    start: float
    steps: int


class FitCache:
    def __init__(self, most: int = MAX_CACHED):
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[str, Fitted] = OrderedDict()

    def get(self, key: str) -> Fitted | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: str, known: Fitted) -> None:
        with self._lock:
            self._known[key] = known
            while len(self._known) > self._most:
                self._known.popitem(last=False)


class Fit:
    """One request's search, for one thread; always `close()` it."""

    def __init__(self, prepared: Prepared, pairs: tuple[Pair, ...], known: FitCache):
        """Raises RamoleError where the method cannot search."""
        self._prepared, self._pairs, self._remembered = prepared, pairs, known
        turn = prepared.turns[-1]
        self.method, request = turn.request.method, turn.request
        self._names = tuple(one.name for one in turn.candidates)
        self._checksums = tuple(one.checksum for one in turn.candidates)
        self.candidates = tuple(_read_once(one) for one in turn.candidates)
        options, seed = complete_options(self.method, request.options), request.seed or 0
        told = (self.method, sorted(options.items()), seed, self._checksums, pairs)
        self._key = hashlib.sha256(repr(told).encode()).hexdigest()
        self._began, self._step, self._start = time.perf_counter(), 0, 0.0
        self._asked: tuple[float, ...] | None = None
        self._search: Search | None = None
        self._known = known.get(self._key)
        if self._known is None:
            try:
                method = find_method(self.method)
                self._search = method.search(len(self._names), options, seed=seed)
            except Exception as error:
                raise fault_of(error, self.method) from error

    @property
    def done(self) -> bool:
        return self._known is not None

    def ask(self) -> Request:
        """The answered turn under the weights to try next; the same until `tell`."""
        assert self._search is not None
        if self._asked is None:
            try:
                self._asked = self._search.ask()
            except Exception as error:
                raise fault_of(error, self.method) from error
        return weighted(self._prepared.turns[-1].request, self._names, self._asked)

    def reading(self) -> PairReading:
        return PairReading(self._pairs)

    def tell(self, loss: float) -> None:
        """Report the loss of the weights from `ask`."""
        assert self._search is not None and self._asked is not None
        try:
            self._search.tell(Tried(self._asked, loss))
        except Exception as error:
            raise fault_of(error, self.method) from error
        self._start = self._start if self._step else loss
        self._step, self._asked = self._step + 1, None
        best = self._search.best
        if self._step >= self._search.steps and best is not None:
            self._known = Fitted(best, self._start, self._step)
            self._remembered.put(self._key, self._known)

    def know(self, best: Tried, *, start: float, steps: int) -> None:
        """Take the result of an equal search."""
        self._known = Fitted(best, start, steps)
        self._remembered.put(self._key, self._known)

    @property
    def report(self) -> Fitting | None:
        """The search's progress; None before the first step."""
        if self._search is None and self._known is not None:
            found, spent = self._known, 0.0
            steps = found.steps
        elif self._search is not None and (best := self._search.best) is not None:
            found, spent = Fitted(best, self._start, self._step), time.perf_counter() - self._began
            steps = self._search.steps
        else:
            return None
        return Fitting(
            method=self.method,
            adapters=self._names,
            checksums=self._checksums,
            step=found.steps,
            steps=steps,
            weights=found.best.weights,
            loss=found.best.loss,
            start=found.start,
            seconds=spent,
        )

    @property
    def fitted(self) -> Prepared:
        """The request with the weights that were found, in each turn that has its adapters."""
        assert self._known is not None
        weights = self._known.best.weights
        once = {one.checksum: one.load for one in self.candidates}

        def placed(turn: Turn) -> Turn:
            if not (turn.candidates and turn.request.examples):
                return turn
            read = tuple(
                replace(one, load=once.get(one.checksum, one.load)) for one in turn.candidates
            )
            return Turn(weighted(turn.request, self._names, weights), read)

        return replace(self._prepared, turns=tuple(map(placed, self._prepared.turns)))

    def close(self) -> None:
        if self._search is not None:
            self._search.close()


def _read_once(one: Candidate) -> Candidate:
    """The same candidate with its tensors cached during the search."""
    return replace(one, load=cache(lambda: dict(one.load())))
