"""The main class: Ramole connects pool, retrieval and engine.

Opening it is light (`opened_pool.py`); the base model loads on first use, or by `load()`.
"""

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ramole_core.answer import Selection, cancelled_answer
from ramole_core.errors import Cancelled, RamoleError
from ramole_core.explaining import Explaining, Explanation
from ramole_core.opened_pool import OpenedPool
from ramole_core.own_model import Progress, load_here
from ramole_core.process_memory import postponed_collection
from ramole_core.request import Fitting, Generation, Request, Step
from ramole_core.selection.part_stream import run_by, stream_parts
from ramole_core.settings import Settings, load_settings
from ramole_core.turns import Places, Source, never, source_of

if TYPE_CHECKING:
    from ramole_core.base.model import BaseModel
    from ramole_core.composition import Candidate
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.engine import Engine
    from ramole_core.engine.prompt import Prepared
    from ramole_core.engine.reader import ModelFacts

BackendMaker = Callable[["Ramole", Progress], "Backend"]
"""Makes the backend of remote engines, once they are live."""

WARM_UP = "Fix the capital letters in the following text: anna lives in oslo."
ELSEWHERE = (
    "The engines run in other processes, and this needs the model in its own; open the system "
    "without them."
)


class Ramole(OpenedPool):
    """A pool of adapters as one model. Use as a context manager, or call `close()`."""

    def __init__(self, settings: Settings | None = None, *, engines: BackendMaker | None = None):
        """Open pool and index; raises RamoleError (Busy: another process has the data folder).

        `engines` gives those that answer, where they are not of this process.
        """
        super().__init__(settings or load_settings())
        self._preparing = Places(most=self.settings.max_queue, rows=self.settings.max_batch)
        self._explaining = Explaining(self)
        self.pool.listeners.append(self._explaining)
        self._loading = threading.RLock()
        self._stopping = threading.Event()
        self._make_engines: BackendMaker = engines or Ramole._local_engine
        self._engines: Backend | None = None
        self._own: tuple[BaseModel, Engine] | None = None  # of this process
        self._ready = False

    def stop(self, *, seconds: float = 2.0) -> None:
        """End every answer that runs or waits, and each that is requested from now on, with the
        finish reason `cancelled`; returns when none is left, or after so many seconds."""
        self._stopping.set()
        end = time.monotonic() + seconds
        while self._engines and not self._engines.idle and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        """End what runs, close model, index and data folder; later calls raise RamoleError."""
        self._closed = True
        self.stop()
        self.packing.close()
        if self._engines is not None:
            self._engines.close()
        super().close()

    @property
    def loaded(self) -> bool:
        """Whether the base model is ready."""
        return self._ready

    @property
    def exact(self) -> bool:
        """Whether a request's tokens are to the bit those it gets alone, whatever else runs, as on
        a CPU; False: within rounding, as on a GPU, or no model is loaded yet."""
        return self._engines is not None and self._engines.facts.exact

    @property
    def model_facts(self) -> "ModelFacts | None":
        """Sizes, precision and layers of the model that answers; None until it is loaded."""
        return None if self._engines is None else self._engines.facts

    def stats(self) -> Mapping[str, int | float]:
        """Counters of the engine since its start, and what it holds now (bytes); nothing before the
        model is there, and nothing is loaded for it."""
        return {} if self._engines is None else self._engines.stats()

    def load(self, progress: Progress | None = None) -> None:
        """Load encoder, index and base model now; a second call returns at once."""
        tell = progress or (lambda stage, fraction: None)
        self._refuse_closed()
        with self._loading, postponed_collection():
            if self._engines is None:
                self._engines = self._make_engines(self, tell)
                self.forget_units()
                self.packing.start(self._engines, self.pool.all_cards())
                try:
                    self._warm_up(tell)
                finally:
                    self._ready = True
                tell("ready", 1.0)

    def _local_engine(self, tell: Progress) -> "Backend":
        """The model of this process."""
        how = {"check": self.check_adapters, "weights": self.weights_of}
        self._own = load_here(self.settings, tell, **how)
        return self._own[1]

    def check_adapters(self, tell: Progress) -> None:
        """Leave out adapters that do not fit the base, and check that the index has the others."""
        tell("reading the adapters", 0.9)
        self.pool.leave_out_unfit()
        self.retriever.check()

    @property
    def base(self) -> "BaseModel":
        """The base model of this process; loads on first use. Raises RamoleError where the engines
        run elsewhere."""
        return self._loaded_here()[0]

    @property
    def engine(self) -> "Engine":
        """The running model of this process; loads on first use. Raises RamoleError where the
        engines run elsewhere."""
        return self._loaded_here()[1]

    def _loaded_here(self) -> "tuple[BaseModel, Engine]":
        self.load()
        if self._own is None:
            raise RamoleError(ELSEWHERE)
        return self._own

    @property
    def engines(self) -> "Backend":
        """The engines, local or remote; loads on first use."""
        self.load()
        assert self._engines is not None
        return self._engines

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special ones as they are written; loads the model on first
        use."""
        ids = list(token_ids)
        return str(self.engines.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def spell(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's own text; half a character is the replacement sign."""
        return [self.decode([token]) for token in token_ids]

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer the requests, in order, at most MAX_BATCH at a time; a bad one raises before any
        runs."""
        items = self.stream_batch(requests)
        answers = {index: item for index, item in items if isinstance(item, Generation)}
        return [answers[index] for index in range(len(answers))]

    def stream(
        self, request: Request, *, fitting: Callable[[Fitting], None] = lambda how: None
    ) -> Generator[Step, None, Generation]:
        """The answer token by token; the generator's return value is the whole Generation.
        `fitting` is called with the progress of the search for its weights, where there is one."""
        answer = None
        for _, item in self.stream_batch([request], fitting=lambda index, how: fitting(how)):
            if isinstance(item, Step):
                yield item
            else:
                answer = item
        assert answer is not None
        return answer

    def stream_batch(
        self,
        requests: Sequence[Request],
        *,
        cancelled: Callable[[], bool] = lambda: False,
        session: str = "",
        address: str = "",
        waiting: Callable[[int, int], None] = lambda index, place: None,
        reading: Callable[[int, int, int], None] = lambda index, done, of: None,
        fitting: Callable[[int, Fitting], None] = lambda index, how: None,
        selected: Callable[[int, Selection], None] = lambda index, selection: None,
    ) -> Generator[tuple[int, Step | Generation], None, None]:
        """Each token of each request as it comes, with the request's index; a Generation ends it.

        All callers, in all threads, share one running batch; a longer list than MAX_BATCH is fed
        in as its rows become free. `session` is whose requests these are (the owner, if not said),
        `address` where they come from (if not said, the session stands for it): addresses take
        turns, and so do the sessions of each. `waiting` is called with a request's index and its
        place in the queue when that changes; 0 means that it runs. `reading` is called with how
        many tokens of its prompt are read, and of how many (not by engines elsewhere). `fitting` is
        called after each step of the search for a request's weights, where its method finds them on
        examples. `selected` is called once for each request, before any token, with its adapters.
        `cancelled` is polled: once it is true, the rest ends there, with the finish
        reason `cancelled`, also before all are selected; closing the iterator does
        the same. Raises Busy where too many wait already, of all or of this address.
        """
        requests = list(requests)
        began = time.perf_counter()
        owner = next((one.owner for one in requests if one.owner), "")
        source = source_of(session or owner, address)
        try:
            with self._preparing.held(source), self.engines.expecting():
                asked = self.prepare(requests, cancelled=cancelled, source=source)
        except Cancelled:
            yield from enumerate(cancelled_answer(began) for _ in requests)
            return
        spent = (time.perf_counter() - began) / max(1, len(requests))
        for index, prepared in enumerate(asked):
            selected(index, prepared.selection)

        run = run_by(
            self.engines,
            requests,
            seconds=spent,
            session=session,
            address=address,
            cancelled=lambda: self._stopping.is_set() or cancelled(),
            waiting=waiting,
            reading=reading,
            fitting=fitting,
        )
        follow = partial(self._preparation.follow, engines=self.engines)
        yield from stream_parts(asked, run=run, follow=follow)

    def start(self) -> None:
        """Step the batch in a thread of its own from now on: what a server does.

        Without it the callers' own threads do it, in turn (scripts, ZeroGPU).
        """
        with self._loading:
            self.engines.start()

    def forget_units(self) -> None:
        """Delete the packed tensors of adapters that the pool has no more."""
        if self._engines is not None:
            self._engines.keep_only(card.content for card in self.pool.all_cards())

    def explain(
        self,
        request: Request,
        position: int,
        top: int = 10,
        *,
        token_ids: Sequence[int] | None = None,
    ) -> Explanation:
        """The likeliest tokens after `position`, of the base and of the mixture.

        `position` counts from the first token of the prompt, as a trace does; `token_ids` are the
        trace's, to spare generating the answer again. Raises RamoleError past the end.
        """
        return self._explaining.explain(request, position, top, token_ids=token_ids)

    def select(self, request: Request) -> Selection:
        """Which adapters would answer the request, and why; nothing is answered. Raises RamoleError
        where it cannot run."""
        return self.prepare([request])[0].selection

    def candidates(self, requests: Sequence[Request]) -> "list[list[Candidate]]":
        """The adapters that each request would get for its last turn; for measuring."""
        return [list(prepared.candidates) for prepared in self.prepare(list(requests))]

    def prepare(
        self,
        requests: Sequence[Request],
        *,
        cancelled: Callable[[], bool] = never,
        source: Source = ("", ""),
    ) -> "list[Prepared]":
        """The requests with the adapters of every turn and their prompts, each embedded and
        read once. Once `cancelled` is true, adapters of the Hub are not waited for; `source`: whose
        turn it is, where adapters are examined.

        Raises RamoleError where one cannot run, Cancelled where they are cancelled before the end.
        """
        return self._preparation.prepare(
            requests,
            self.engines,
            cancelled=lambda: self._stopping.is_set() or cancelled(),
            source=source,
        )

    def _warm_up(self, tell: Progress) -> None:
        """Run a first prompt, so that no user waits for its setup."""
        self.packing.pack_first(self.engines, self.pool.cards(), tell)
        tell("warming up", 0.99)
        self.retriever.embed([WARM_UP])
        most = min(4, self.settings.max_new_tokens)
        self.generate([Request(WARM_UP, method="base", raw=True, max_new_tokens=most, trace=False)])
        with suppress(RamoleError):  # such as a damaged adapter: its requests raise
            self.generate([Request(WARM_UP, max_new_tokens=most)])
