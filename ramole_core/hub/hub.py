"""The Hub beside the pool: search, list, and fetch adapters on first use.

What is listed has an index of its own, DATA_DIR/hub/chroma, made by the pool's encoder; a prompt is
compared with both. The pool is unaffected by it before an adapter is fetched.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ramole_core.base.fetch import Progress
from ramole_core.base.hub_name import hub_id, hub_name
from ramole_core.errors import Busy, RamoleError
from ramole_core.hub.arrivals import MAX_WAIT_SECONDS, Arrivals, NotHere, Wait
from ramole_core.hub.register import Listed, Register
from ramole_core.hub.search import Searcher, SearchResult
from ramole_core.pool.inspection import Shapes
from ramole_core.pool.pool import Pool
from ramole_core.retrieval import AdapterIndex, Hit, Retriever
from ramole_core.retrieval.collection import COLLECTION
from ramole_core.retrieval.kept_index import Embedder
from ramole_core.settings import Settings

MAX_TRIED = 8
"""Adapters that are fetched, or tried, for one prompt at most."""


@dataclass(frozen=True)
class Stage:
    """The progress of a running search."""

    words: str
    fraction: float


class Hub:
    """The Hub's adapters of one base. Light to make: nothing is read before use. Thread-safe."""

    def __init__(
        self,
        pool: Pool,
        retriever: Retriever,
        *,
        encoder: Embedder,
        shapes: Callable[[], Shapes],
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ):
        s = settings
        self.allowed = s.hub_adapters
        """Whether a prompt may find what is listed."""
        self.spare = 4
        """Further adapters that may be tried where a fetch fails."""
        self._pool, self._shapes = pool, shapes
        self._base, self._most = s.hub_base or s.base_model, s.hub_listed
        folder = s.data_dir / "hub"
        self._register = Register(folder, base=hub_name(self._base))
        self._retriever = Retriever(
            pool=self._register,
            encoder=encoder,
            index=AdapterIndex(data_dir=folder, url=s.chroma_url and _beside(s.chroma_url)),
            recent=retriever.recent,
        )
        self._arrivals = Arrivals(pool, self._register, mb=s.hub_mb, clock=clock)
        self._searching = threading.Lock()
        self._stop = threading.Event()
        self.stage: Stage | None = None
        """Progress of the running search; None: none runs."""

    def close(self) -> None:
        """End a search, abandon fetches, and close the index."""
        self._stop.set()
        self._arrivals.close()
        self._retriever.close()

    def rows(self) -> list[Listed]:
        """The list, those downloaded most first."""
        return self._register.rows()

    @property
    def when(self) -> float | None:
        """The time of the list, in seconds since 1970; None: never."""
        self._register.rows()
        return self._register.when

    def fetched(self) -> set[str]:
        """The repositories whose weights are in the pool."""
        return self._arrivals.there()

    def search(
        self, progress: Progress | None = None, *, most: int | None = None, anew: bool = False
    ) -> SearchResult:
        """List the Hub's adapters of this base, read their cards and index them; no weights.

        `anew` reads cards again that have not changed. Raises RamoleError where the Hub does not
        answer, and Busy while another search runs.
        """
        base = hub_id(self._base)
        if not self._searching.acquire(blocking=False):
            raise Busy("The Hub is being searched already; wait for that to end, or stop it.")
        tell = progress or (lambda words, fraction: None)

        def staged(words: str, fraction: float) -> None:
            self.stage = Stage(words, fraction)
            tell(words, fraction)

        try:
            self._stop.clear()
            searcher = Searcher(
                self._register,
                self._retriever,
                base=base,
                shapes=self._shapes,
                limits=self._pool.limits,
                progress=staged,
                stop=self._stop,
            )
            return searcher.run(most=most or self._most, anew=anew)
        except BaseException:
            self._stop.set()
            raise
        finally:
            self.stage = None
            self._searching.release()

    def stop(self) -> None:
        """End the running search, if any; what it has read stays listed."""
        self._stop.set()

    def near(self, text: str, k: int, exclude: Collection[str] = ()) -> list[tuple[Listed, float]]:
        """The k listed adapters nearest to the text that are not in the pool, best first; `exclude`
        names them as `is_listed` does."""
        if not self.allowed or not (rows := {one.name: one for one in self._register.all_cards()}):
            return []
        here = self.fetched()
        left = {one.repo for name in exclude if (one := self._register.get(name))}
        out = [one.name for one in rows.values() if one.repo in here or one.repo in left]
        if len(out) == len(rows):
            return []
        hits = self._retriever.retrieve(text, k=k, exclude=out)
        return [(rows[hit.name], hit.score) for hit in hits if hit.name in rows]

    def wait(self, ended: Callable[[], bool] = lambda: False) -> Wait:
        """A deadline for weights from now on; `ended` is polled."""
        return Wait(time.monotonic() + MAX_WAIT_SECONDS, ended)

    def bring_nearer(
        self,
        near: Sequence[tuple[Listed, float]],
        hits: Sequence[Hit],
        k: int,
        wait: Wait | None = None,
    ) -> tuple[str, ...]:
        """Fetch those of `near` that are among the k nearest beside the pool's `hits`, and where
        one does not come, the next best; a sentence for each."""
        wait = wait or self.wait()
        said: list[str] = []
        places = k
        mine = sorted((hit.score for hit in hits), reverse=True)
        for one, score in near[:MAX_TRIED]:
            ahead = sum(other >= score for other in mine)
            if ahead >= places:
                break
            try:
                said.append(self._brought(one, wait))
                places -= 1
            except NotHere as why:
                said.append(
                    f"{one.repo} on the Hub is nearer, and the next best answers in its place: "
                    f"{why}"
                )
        return tuple(said)

    def bring_named(
        self, names: Sequence[str], *, there: Collection[str], wait: Wait | None = None
    ) -> tuple[str, ...]:
        """Fetch those of `names` that are listed and not `there`; raises RamoleError for one that
        does not come."""
        wait = wait or self.wait()
        said: list[str] = []
        for name in names:
            one = self._register.get(name) if self.allowed and name not in there else None
            if one is None:
                continue
            try:
                said.append(self._brought(one, wait))
            except NotHere as why:
                raise RamoleError(f"{one.repo} cannot be used: {why}") from None
        return tuple(said)

    def _brought(self, one: Listed, wait: Wait) -> str:
        """Fetch the adapter; returns a sentence about it. Raises NotHere."""
        self._arrivals.bring(one, wait)
        licence = f", licence {one.licence}" if one.licence else ""
        size = f"({one.bytes / 2**20:.1f} MiB{licence})"
        return f"{one.repo} was fetched from the Hub for this answer {size}."

    def name_in_pool(self, name: str) -> str:
        """The pool's name of a listed adapter, such as `hf:owner/name`; any other name as it is."""
        one = self._register.get(name) if self.allowed else None
        card = self._arrivals.here(one) if one is not None else None
        return card.name if card is not None else name

    def is_listed(self, name: str) -> bool:
        """Whether an adapter of this name is listed."""
        return self.allowed and self._register.get(name) is not None

    def used(self, names: Sequence[str]) -> None:
        """Mark these as used: others are evicted first."""
        if self.allowed:
            self._arrivals.touch(list(names))


def _beside(url: str) -> str:
    """The Chroma server's collection beside that of the pool."""
    name = urlsplit(url).path.strip("/")
    return f"{url.rstrip('/')}-hub" if name else f"{url.rstrip('/')}/{COLLECTION}-hub"
