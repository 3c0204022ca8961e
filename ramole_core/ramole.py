"""The main class: Ramole connects pool, retrieval and engine.

Opening it is light: the pool's cards are read, nothing else. The index, the sentence encoder and
the base model load on first use, or when `load()` is called.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING

from ramole_core.answer import Selection, cancelled_answer
from ramole_core.base.hub_name import hub_name
from ramole_core.errors import Cancelled, RamoleError, WrongField
from ramole_core.explaining import Explaining, Explanation
from ramole_core.hub import Hub
from ramole_core.methods import Method, find_row
from ramole_core.mixes import Mix, Mixes
from ramole_core.own_model import OwnModel, Progress
from ramole_core.pool import Limits, Pool
from ramole_core.prepack import Prepack
from ramole_core.process_memory import postponed_collection
from ramole_core.request import Fitting, Generation, Request, Step
from ramole_core.request_parts import has_half
from ramole_core.retrieval import AdapterIndex, BaseExpert, Encoder, Hit, Retriever
from ramole_core.selection.finder import Finder
from ramole_core.selection.hub_fetch import HubFetch
from ramole_core.selection.part_stream import stream_parts
from ramole_core.selection.parts import Parts
from ramole_core.selection.prepare import Preparation
from ramole_core.selection.selector import Selector
from ramole_core.settings import Settings, load_settings
from ramole_core.shell_commands import warn_of
from ramole_core.turns import Places, Source, never, source_of
from ramole_core.weights_here import WeightsHere

if TYPE_CHECKING:
    from ramole_core.base.model import BaseModel
    from ramole_core.composition import Candidate, Composition, Trained
    from ramole_core.composition.trained import WeightsFolder
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.engine import Engine
    from ramole_core.engine.prompt import Prepared
    from ramole_core.engine.reader import ModelFacts
    from ramole_core.pool import AdapterCard

BackendMaker = Callable[["Ramole", Progress], "Backend"]
"""Gives the engines that answer elsewhere, once they are there."""

WARM_UP = "Fix the capital letters in the following text: anna lives in oslo."
MAX_PACKED_NUMBERS = 2**26
"""Of the adapters that are packed before a start has ended: at most three seconds of a core."""
ELSEWHERE = (
    "The engines run in other processes, and this needs the model in its own; open the system "
    "without them."
)


class Ramole:
    """A pool of adapters as one model. Use as a context manager, or call `close()`."""

    def __init__(self, settings: Settings | None = None, *, engines: BackendMaker | None = None):
        """Open pool and index; raises RamoleError (Busy: another process has the data folder).

        `engines` gives those that answer, where they are not of this process.
        """
        s = self.settings = settings or load_settings()
        self._model = OwnModel(s)
        self._here = WeightsHere(s.adapters_dir, base_model=s.base_model, data_dir=s.data_dir)
        self.pool = Pool(
            adapters_dir=s.adapters_dir,
            data_dir=s.data_dir,
            shapes=self._model.shapes,
            limits=Limits(
                max_upload_mb=s.max_upload_mb, max_rank=s.max_rank, max_adapters=s.max_adapters
            ),
            shared_uploads=s.shared_uploads,
            base_name=hub_name(s.hub_base or s.base_model),
        )
        encoder = Encoder(s.encoder, data_dir=s.data_dir, adapter=s.trained("_retriever"))
        self.retriever = Retriever(
            pool=self.pool,
            encoder=encoder,
            index=AdapterIndex(data_dir=s.data_dir, url=s.chroma_url),
        )
        self.base_expert = BaseExpert(
            self.retriever, folder=s.trained("_base"), base=lambda: self.base_kind
        )
        self.hub = Hub(
            self.pool,
            self.retriever,
            encoder=encoder,
            shapes=self._model.shapes,
            settings=s,
        )
        """The Hub's adapters of this base, that may come into the pool."""
        self._mixes = Mixes(s.data_dir)
        finder = Finder(self.pool, self.retriever, weights=self.weights_of)
        self._selector = Selector(
            self.pool,
            self.retriever,
            finder=finder,
            hub=HubFetch(self.hub, self.pool, self.retriever, base=self.base_expert),
            base=self.base_expert,
            max_new_tokens=s.max_new_tokens,
        )
        self.packing = Prepack(finder.candidate, folder=s.data_dir)
        """Adapters without examples, before a prompt meets them."""
        self.pool.listeners += [self.retriever, self.packing, _Forgetting(self)]
        self._preparation = Preparation(
            self._selector,
            Parts(self.pool, self.retriever, base=self.base_expert),
            self._mixes,
            self.hub,
            self.pool,
        )
        self._preparing = Places(most=s.max_queue, rows=s.max_batch)
        self._explaining = Explaining(self)
        self._loading = threading.RLock()
        self._stopping = threading.Event()
        self._closed = False
        self._make_engines: BackendMaker = engines or Ramole._local_engine
        self._engines: Backend | None = None
        self._ready = False

    def __enter__(self) -> "Ramole":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self, *, seconds: float = 2.0) -> None:
        """End every answer that runs or waits, and each that is asked for from now on, with the
        finish reason `cancelled`; returns when none is left, or after so many seconds."""
        self._stopping.set()
        end = time.monotonic() + seconds
        while self._engines and not self._engines.idle and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        """Close the model, the index and the data folder; later calls raise RamoleError."""
        self._closed = True
        self.packing.close()
        if self._engines is not None:
            self._engines.close()
        self.retriever.close()
        self.hub.close()
        self.pool.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RamoleError("This Ramole is closed; open another one.")

    def methods(self) -> tuple[Method, ...]:
        """The composition methods that can answer here: name, paper, one line on what each does,
        options. One whose trained weights are not there, or of another base model, is left out;
        asked for by name, it says how they are made."""
        return self._here.methods()

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
        """What the engine has done since it began, and what it holds now (bytes); nothing before
        the model is there, and nothing is loaded for it."""
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
        return self._model.load(tell, check=self.check_adapters, weights=self.weights_of)

    def check_adapters(self, tell: Progress) -> None:
        """Leave out adapters that do not fit the base, and check that the index has the others."""
        tell("reading the adapters", 0.9)
        self.pool.leave_out_unfit()
        self.retriever.check()

    @property
    def base(self) -> "BaseModel":
        """The base model of this process; loads on first use. Raises RamoleError where the engines
        run elsewhere."""
        self.load()
        if self._model.base is None:
            raise RamoleError(ELSEWHERE)
        return self._model.base

    @property
    def engine(self) -> "Engine":
        """The running model of this process; loads on first use. Raises RamoleError where the
        engines run elsewhere."""
        self.load()
        if self._model.engine is None:
            raise RamoleError(ELSEWHERE)
        return self._model.engine

    @property
    def engines(self) -> "Backend":
        """The engines, local or remote; loads on first use."""
        self.load()
        assert self._engines is not None
        return self._engines

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special ones as they are written; loads the model on first
        use."""
        return self._decode(list(token_ids))

    def spell(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token by itself; half a character is the replacement sign."""
        return [self._decode([token]) for token in token_ids]

    def _decode(self, ids: list[int]) -> str:
        return str(self.engines.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def retrieve(
        self, text: str, k: int = 3, exclude: Iterable[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The k adapters whose vectors are nearest to the text's, best first (cosine)."""
        self._refuse_closed()
        if has_half(text):
            raise WrongField("text", f"={text[:60]!r} has half a character in it; send whole ones.")
        return self.retriever.retrieve(text, k=k, exclude=tuple(exclude), owner=owner)

    def neighbours(self, name: str, k: int = 3, owner: str | None = None) -> list[Hit]:
        """The k adapters nearest to this one, itself left out."""
        self._refuse_closed()
        return self.retriever.neighbours(self.pool.card(name, owner), k=k, owner=owner)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer the requests, in order, at most MAX_BATCH at a time; a bad one raises before any
        runs."""
        answers: dict[int, Generation] = {}
        for index, item in self.stream_batch(requests):
            if isinstance(item, Generation):
                answers[index] = item
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
        `cancelled` is asked again and again: once it is true, the rest ends there, with the finish
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

        def run(
            indexes: Sequence[int], parts: "Sequence[Prepared]"
        ) -> Iterator[tuple[int, Step | Generation]]:
            stream = self.engines.stream(
                parts,
                session=session,
                address=address,
                cancelled=lambda: self._stopping.is_set() or cancelled(),
                waiting=lambda place, before: waiting(indexes[place], before),
                reading=lambda place, done, of: reading(indexes[place], done, of),
                fitting=lambda place, how: fitting(indexes[place], how),
            )
            for place, item in stream:
                if isinstance(item, Generation):
                    selection = parts[place].selection
                    item = replace(
                        item,
                        extra={"retrieve": spent, **item.extra},
                        evidence=selection.evidence,
                        notes=(*selection.notes, *item.notes, *warn_of(item.text)),
                        part=selection.text,
                    )
                    if requests[indexes[place]].mix is not None:
                        mixed = parts[place].request
                        weights = mixed.weights and tuple(mixed.weights)
                        item = replace(item, method=mixed.method, weights=weights)
                yield place, item

        follow = partial(self._preparation.follow, engines=self.engines)
        yield from stream_parts(asked, run=run, follow=follow)

    def keep_mix(self, name: str, answer: Generation, owner: str | None = None) -> Mix:
        """Keep the weights that a search found, under a name that `Request.mix` takes.

        Raises RamoleError where the answer has none, or the name is taken.
        """
        return self._mixes.keep(name, answer, owner)

    def mixes(self, owner: str | None = None) -> list[Mix]:
        """The mixes that were kept: the owner's and the shared ones."""
        return self._mixes.all(owner)

    def remove_mix(self, name: str, owner: str | None = None) -> None:
        """Remove one of the owner's mixes."""
        self._mixes.remove(name, owner)

    def mix_owners(self) -> set[str]:
        """All owners of mixes."""
        return self._mixes.owners()

    def remove_mixes(self, owner: str) -> int:
        """Remove all of the owner's own mixes; returns how many."""
        return self._mixes.remove_all(owner)

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

    @property
    def router_checksum(self) -> str | None:
        """SHA-256 of the trained router's file, None where there is none."""
        return self.weights_checksums().get("ramole")

    def weights_checksums(self) -> dict[str, str]:
        """SHA-256 of the trained weights of each method that has some."""
        found = self._weights_folder.checksums()
        return {name: one for name, one in found.items() if self._here.fits(find_row(name))}

    def check(self, request: Request) -> None:
        """Raise RamoleError where the request cannot run, as far as is known without the model."""
        if request.mix is not None:  # it says method and adapters itself
            self._mixes.get(request.mix, request.owner)
            return
        for turn in request.turns:
            self._here.require(find_row(turn.method))
        self._selector.check(request)

    def select(self, request: Request) -> Selection:
        """Which adapters would answer the request, and why; nothing is answered. Raises RamoleError
        where it cannot run."""
        return self.prepare([request])[0].selection

    def parts(self, request: Request) -> tuple[str, ...]:
        """The parts of the request's prompt that are answered one after another; the prompt alone
        where it is answered as a whole."""
        return self._preparation.parts(request)

    def candidates(self, requests: Sequence[Request]) -> "list[list[Candidate]]":
        """The adapters that each request would get for the turn that is answered, as the engine
        takes them; for measuring."""
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

        Raises RamoleError where one of them cannot run, Cancelled where they are cancelled before
        all are looked up.
        """
        return self._preparation.prepare(
            requests,
            self.engines,
            cancelled=lambda: self._stopping.is_set() or cancelled(),
            source=source,
        )

    def _warm_up(self, tell: Progress) -> None:
        """Do once what a first prompt would wait for: pack the adapters, as many as a start may
        take, and answer a prompt by the base and by the method that most prompts have."""
        cards = _within(self.pool.cards(), MAX_PACKED_NUMBERS)
        for n, card in enumerate(cards):
            tell(f"packing the adapters, {n} of {len(cards)}", 0.95 + 0.04 * n / len(cards))
            self.packing.pack(self.engines, card)
        tell("warming up", 0.99)
        self.retriever.embed([WARM_UP])
        bare = Request(WARM_UP, method="base", raw=True, max_new_tokens=2, trace=False)
        for _ in self.stream(bare):
            pass
        with suppress(RamoleError):  # such as a damaged adapter: who asks for it is told
            for _ in self.stream(Request(WARM_UP, max_new_tokens=4)):
                pass

    def weights_of(self, method: "Composition") -> "Trained | None":
        """A method's trained weights; None where it has none."""
        if method.needs_weights:
            self._here.check(method.row)
        elif not self._here.fits(method.row):
            return None
        return self._weights_folder.get(method.row, needed=method.needs_weights)

    @cached_property
    def _weights_folder(self) -> "WeightsFolder":
        from ramole_core.composition.trained import WeightsFolder

        return WeightsFolder(self.settings.adapters_dir, own=self.settings.trained_dir)

    @property
    def base_kind(self) -> str:
        """16 hex digits that stand for the base model's layers and their sizes, whatever their
        precision."""
        return self._model.kind


def _within(cards: "Sequence[AdapterCard]", most: int) -> "list[AdapterCard]":
    """The first of these adapters, as long as they have at most so many numbers together."""
    sums = accumulate(card.parameters for card in cards)
    return [card for card, numbers in zip(cards, sums, strict=True) if numbers <= most]


class _Forgetting:
    """A listener of the pool that deletes a removed adapter's packed files."""

    def __init__(self, ramole: Ramole):
        self._ramole = ramole

    def added(self, card: "AdapterCard") -> None:
        self._ramole._explaining.forget()

    def removed(self, card: "AdapterCard") -> None:
        self._ramole._explaining.forget()
        self._ramole.forget_units()
