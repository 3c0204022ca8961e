"""`Backend` of other processes: the page reads and checks a request, an engine answers it.

The page has the tokenizer and a few facts of the model, not the model.
"""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import TypeVar, Unpack, cast

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate, Response, Tried
from ramole_core.engine.fitting import Fit
from ramole_core.engine.placement import Weights
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.engine.prompt_reader import Likely
from ramole_core.engine.reader import ModelFacts, RequestReader
from ramole_core.engine.request_stream import Caller
from ramole_core.request import Fitting, Generation, Request, Step
from ramole_core.serving.fleet import EngineLost, Fleet, NoEngine
from ramole_core.serving.placing import Placing
from ramole_core.serving.remote_stream import MAX_WAIT_SECONDS, RETRY_SECONDS, RemoteStream
from ramole_core.serving.wire import job_of, read_by, seeded, unread
from ramole_core.turns import Source, never

log = logging.getLogger(__name__)
START_SECONDS = 3600.0
"""Seconds that the first engine may take to load its model."""
FORGET_SECONDS = 5.0
"""Time in which all engines delete a removed adapter; its removal waits for them."""
POLL_SECONDS = 2.0
"""Interval at which the engines' counters are read."""
GAUGES = (
    *("running", "waiting", "kv_bytes", "kv_cached_bytes", "kv_made_bytes"),
    *("host_bytes", "host_adapters", "bank_bytes", "bank_adapters", "bank_pages"),
)
"""Counters of what an engine holds now, and loses with its process; the rest only grow."""
T = TypeVar("T")


class RemoteBackend:
    """The backend over every engine of a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        placing: Placing,
        *,
        tokenizer: PreTrainedTokenizerBase,
        weights: Weights,
        hold: Callable[[Sequence[str]], AbstractContextManager[None]],
        rows: int,
    ):
        """Wait for the first engine, START_SECONDS seconds at most. `hold` keeps adapters in the
        store while requests use them; `rows`: requests that one engine runs at the same time.
        Raises NoEngine."""
        self._fleet, self._placing, self._hold, self._rows = fleet, placing, hold, rows
        self._facts = self._call(None, "model_facts", kind=ModelFacts, patience=START_SECONDS)
        self._reader = RequestReader(tokenizer, self._facts, weights=weights)
        self._lock = threading.Lock()
        self._open = self._moves = 0
        self._stats: dict[str, Mapping[str, int | float]] = {}
        self._past: Counter[str] = Counter()
        self._ending = threading.Event()
        self._page = uuid.uuid4().hex
        for name, work in (("engines", self._poll), ("page", self._renew_leases)):
            threading.Thread(target=work, name=name, daemon=True).start()

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._reader.tokenizer

    def read(self, request: Request) -> Prompt:
        return self._reader.read(request)

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Turn] = (),
    ) -> Prepared:
        asked = (*earlier, Turn(request.turns[-1], tuple(candidates)))
        prepared = self._reader.prepare(request, candidates, prompt, earlier=earlier)
        return replace(prepared, turns=asked)  # what a method brings, an engine has by itself

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        sent = tuple(read_by(unread, part) for part in candidates)
        contents = [one.checksum for part in sent for one in part]
        return self._call_held(contents, "examine", tuple(prompts), sent, source)

    def expecting(self) -> AbstractContextManager[None]:
        """Do nothing: no engine waits for what is prepared on the page."""
        return nullcontext()

    def stream(
        self, asked: Sequence[Prepared], **caller: Unpack[Caller]
    ) -> Iterator[tuple[int, Step | Generation]]:
        stream = RemoteStream(
            self._fleet,
            self._placing,
            [self._with_fit(seeded(prepared)) for prepared in asked],
            hold=self._hold,
            found=self._found,
            most=self._rows * max(1, len(self._fleet.keys())),
            page=self._page,
            **caller,
        )
        with self._lock:
            self._open += 1
        try:
            yield from stream
        finally:
            with self._lock:
                self._open -= 1
                self._moves += stream.moves

    def fit(self, prepared: Prepared) -> Fit | None:
        return self._reader.fit(prepared)

    def next_tokens(
        self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[Likely]:
        jobs = tuple(map(job_of, asked))
        contents = [content for job in jobs for content in job.contents]
        return self._call_held(contents, "next_tokens", jobs, tuple(ids), top)

    def stats(self) -> Mapping[str, int | float]:
        with self._lock:
            found = Counter(self._past)
            for one in self._stats.values():
                found.update(one)
            return {**found, "engines": len(self._fleet.keys()), "moves": self._moves}

    @property
    def idle(self) -> bool:
        return not self._open

    def start(self) -> None:
        """Do nothing: each engine has a thread of its own."""

    def pack(self, candidate: Candidate) -> None:
        """Do nothing: which engine needs an adapter is not known before."""

    def keep_only(self, checksums: Iterable[str]) -> None:
        """Do nothing: `forget` is called for each removed adapter."""

    def forget(self, contents: Sequence[str]) -> None:
        """Delete these adapters at all engines; one that cannot be reached does so at its next
        start."""
        told = [
            threading.Thread(target=self._forget_at, args=[key, tuple(contents)], daemon=True)
            for key in self._fleet.keys()
        ]
        for one in told:
            one.start()
        end = time.monotonic() + FORGET_SECONDS
        for one in told:
            one.join(max(0.0, end - time.monotonic()))

    def _forget_at(self, key: str, contents: Sequence[str]) -> None:
        try:
            self._fleet.call(key, "forget", contents)
        except EngineLost:
            return
        except Exception as error:
            log.warning("An engine keeps a removed adapter: %s", type(error).__name__)

    def close(self) -> None:
        self.leave_fleet()
        self._fleet.close()

    def leave_fleet(self) -> None:
        """End this object's threads; the fleet stays open for another one."""
        self._ending.set()

    def _call_held(self, contents: Sequence[str], name: str, *args: object) -> list:
        """Call while these adapters are kept in the store, at the engine of the first."""
        with self._hold(sorted(set(contents))):
            return self._call(next(iter(contents), None), name, *args, kind=list)

    def _call(
        self,
        near: str | None,
        name: str,
        *args: object,
        kind: type[T],
        patience: float = MAX_WAIT_SECONDS,
    ) -> T:
        """Call a method of the adapter's engine, or of another where that one is lost."""
        began = time.monotonic()
        lost: set[str] = set()
        while True:
            if time.monotonic() - began > patience:
                raise NoEngine(patience)
            if not (keys := self._fleet.keys()):
                time.sleep(RETRY_SECONDS)
                continue
            key = self._placing.begin(near, keys, lost=lost)
            try:
                return cast(T, self._fleet.call(key, name, *args))
            except EngineLost:
                lost.add(key)
            finally:
                self._placing.end(key)

    def _with_fit(self, prepared: Prepared) -> tuple[Prepared, Fitting | None]:
        """Fill in the weights of an earlier equal search, if cached."""
        fit = self._reader.fit(prepared)
        if fit is None:
            return prepared, None
        with closing(fit):
            return (fit.fitted, fit.report) if fit.done else (prepared, None)

    def _found(self, prepared: Prepared, report: Fitting) -> Prepared:
        """Cache a search's result; returns the request with those weights."""
        fit = self._reader.fit(prepared)
        if fit is None:
            return prepared
        with closing(fit):
            fit.know(Tried(report.weights, report.loss), start=report.start, steps=report.step)
            return fit.fitted

    def _renew_leases(self) -> None:
        """Renew this page's lease at all engines, in a thread of its own, so that a hanging engine
        blocks no other."""
        while not self._ending.wait(POLL_SECONDS):
            for key in self._fleet.keys():
                self._fleet.notify(key, "here", self._page)

    def _poll(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            self._read_stats()

    def _read_stats(self) -> None:
        """Read the counters of all engines, keeping those of engines that are gone."""
        keys = set(self._fleet.keys())
        found = {}
        for key in keys:
            try:
                found[key] = cast(Mapping[str, int | float], self._fleet.call(key, "stats"))
            except Exception:  # it starts or ends; the next look tells
                continue
        with self._lock:
            self._stats |= found
            for key in set(self._stats) - keys:
                gone = self._stats.pop(key)
                self._past.update({n: v for n, v in gone.items() if n not in GAUGES})
