"""Renew the list: the Hub's rows, each new one's card read by several threads, and indexed.

Repositories of the same commit are not read again. A stopped search keeps what it has read.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace

from ramole_core.base.fetch import Progress
from ramole_core.errors import AdapterRefused
from ramole_core.hub.client import HubClient, Stopped, Unreachable
from ramole_core.hub.register import Listed, Register
from ramole_core.hub.repository import count_in, known_by, read_repository
from ramole_core.pool.card import Limits
from ramole_core.pool.inspection import Shapes
from ramole_core.pool.names import clean_name, free_name
from ramole_core.retrieval import Retriever

THREADS = 8
BATCH_SIZE = 200
"""Cards that are indexed together; a kill loses at most one batch."""
MAX_FAILURES = 12
"""Failures in a row after which the Hub counts as unreachable."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search of the Hub."""

    base: str
    """The base model's name there."""
    rows: tuple[Listed, ...]
    """All that is listed now, those downloaded most first."""
    read: int
    """Number of cards that were read; the others were unchanged."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Repositories that could not be read this time, and why."""
    stopped: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        refused = sum(one.verdict == "refused" for one in self.rows)
        text = (
            f"{len(self.rows)} adapters of {self.base} are listed, {refused} of them refused; "
            f"{self.read} cards were read in {self.seconds:.1f} s."
        )
        if self.unread:
            text += f" {len(self.unread)} could not be read this time."
        return f"{text} It was stopped before its end." if self.stopped else text


class Searcher:
    """One search; `run` may be called once."""

    def __init__(
        self,
        register: Register,
        retriever: Retriever,
        *,
        base: str,
        shapes: Callable[[], Shapes],
        limits: Limits,
        progress: Progress,
        stop: threading.Event,
    ):
        """`retriever` finds what is listed; `stop` ends the search."""
        self._register, self._retriever, self._base = register, retriever, base
        self._shapes, self._limits = shapes, limits
        self._progress, self._stop = progress, stop
        self._client = HubClient(stop)
        self._new: list[Listed] = []
        self._read, self._silent = 0, 0
        self._unread: dict[str, str] = {}

    def run(self, *, most: int, anew: bool = False) -> SearchResult:
        """List up to `most`; with `anew` cards are read again. Raises RamoleError where the Hub
        does not answer; adapters read until then stay listed."""
        began = time.monotonic()
        self._progress("asking the Hub", 0.0)
        found: list[Mapping[str, object]] = []
        try:
            for row in self._client.adapters_of(self._base, most=most):
                found.append(row)
                self._progress(f"asking the Hub: {len(found)} adapters so far", 0.0)
            rows = {who[0]: row for row in found if (who := known_by(row))}
            there = {one.repo: one for one in self._register.rows()}
            names = names_for(rows, {repo: one.name for repo, one in there.items()})
            shas = {} if anew else {repo: one.sha for repo, one in there.items()}
            same = {repo for repo, row in rows.items() if shas.get(repo) == row["sha"]}
            if same:
                self._register.put(
                    replace(there[repo], downloads=count_in(rows[repo])) for repo in same
                )
            self._read_all([row for repo, row in rows.items() if repo not in same], names)
        except Stopped:
            pass
        else:
            self._register.keep_only(rows, when=time.time())
            self._retriever.check()
        return SearchResult(
            self._base,
            tuple(self._register.rows()),
            read=self._read,
            unread=self._unread,
            stopped=self._stop.is_set(),
            seconds=time.monotonic() - began,
        )

    def _read_all(self, rows: Sequence[Mapping[str, object]], names: Mapping[str, str]) -> None:
        """Read all cards, by some threads; raises Stopped, and Unreachable for a Hub that is
        gone."""
        if not rows:
            return
        shapes = self._shapes()
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="hub")
        try:
            asked = {
                pool.submit(
                    read_repository,
                    row,
                    self._client,
                    name=names[str(row["id"])],
                    shapes=shapes,
                    limits=self._limits,
                ): str(row["id"])
                for row in rows
            }
            for count, done in enumerate(as_completed(asked), start=1):
                self._take(done, asked[done])
                self._progress(f"reading cards: {count} of {len(rows)}", count / len(rows))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._keep(least=1)

    def _take(self, done: "Future[Listed]", repo: str) -> None:
        try:
            self._new.append(done.result())
            self._read += 1
            self._silent = 0
        except Unreachable as error:
            self._unread[repo] = str(error)
            self._silent += 1
            if self._silent >= MAX_FAILURES:
                raise
        self._keep(least=BATCH_SIZE)
        if self._stop.is_set():
            raise Stopped

    def _keep(self, *, least: int) -> None:
        """Index what was read in batches, then list it, so that every listed adapter has a
        vector."""
        if len(self._new) >= least:
            new, self._new = self._new, []
            try:
                self._retriever.take_in([one for one in new if one.verdict != "refused"])
            finally:
                self._register.put(new)


def names_for(repos: Collection[str], known: Mapping[str, str]) -> dict[str, str]:
    """A name in the pool for each repository, `owner--name`; those that have one keep it."""
    names = {repo: known[repo] for repo in repos if repo in known}
    taken = set(known.values())
    for repo in repos:
        if repo in names:
            continue
        try:
            name = clean_name(repo.replace("/", "--").lstrip("_-."))
        except AdapterRefused:
            name = f"hub-{hashlib.sha256(repo.encode()).hexdigest()[:12]}"
        names[repo] = free_name(name, taken) if name in taken else name
        taken.add(names[repo])
    return names
