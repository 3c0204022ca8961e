"""The front door: Ramole ties pool, retrieval and engine together.

Opening it is light: the pool's cards are read, nothing else. The index, the sentence encoder and
the base model load on first use, or when `load()` is called.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ramole_core.choosing import Chooser
from ramole_core.engine.request import Generation, Request, Step
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method
from ramole_core.pool import Limits, Pool
from ramole_core.retrieval import AdapterIndex, Encoder, Hit, Retriever
from ramole_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from ramole_core.base_model import BaseModel
    from ramole_core.composition import Router
    from ramole_core.engine.driving import EngineThread
    from ramole_core.engine.engine import Engine
    from ramole_core.engine.ticket import Chosen
    from ramole_core.pool import AdapterCard

Progress = Callable[[str, float], None]
"""Called with the stage in words and the fraction done, 0 to 1."""


@dataclass(frozen=True)
class Explanation:
    """The likeliest next tokens at one position, with their probabilities."""

    base: list[tuple[str, float]]
    mixture: list[tuple[str, float]]


class Ramole:
    """A pool of adapters as one model. Use as a context manager, or call `close()`."""

    def __init__(self, settings: Settings | None = None):
        """Open pool and index; raises RamoleError (Busy: another process has the data folder)."""
        s = self.settings = settings or load_settings()
        self.pool = Pool(
            adapters_dir=s.adapters_dir,
            data_dir=s.data_dir,
            shapes=self._shapes,
            limits=Limits(
                max_upload_mb=s.max_upload_mb, max_rank=s.max_rank, max_adapters=s.max_adapters
            ),
            shared_uploads=s.shared_uploads,
        )
        self.retriever = Retriever(
            pool=self.pool,
            encoder=Encoder(s.encoder, data_dir=s.data_dir, adapter=s.adapters_dir / "_retriever"),
            index=AdapterIndex(data_dir=s.data_dir, url=s.chroma_url),
        )
        self.pool.listeners += [self.retriever, _Forgetting(self)]
        self._chooser = Chooser(self.pool, self.retriever, max_new_tokens=s.max_new_tokens)
        self._loading = threading.RLock()
        self._base: BaseModel | None = None
        self._engine: Engine | None = None
        self._thread: EngineThread | None = None

    def __enter__(self) -> "Ramole":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the model, the index and the data folder back."""
        if self._thread is not None:
            self._thread.close()
        if self._engine is not None:
            self._engine.close()
        self.retriever.close()
        self.pool.close()

    def methods(self) -> tuple[Method, ...]:
        """The composition methods: name, paper, one line on what each does."""
        return METHOD_LIST

    @property
    def loaded(self) -> bool:
        """Whether the base model is ready."""
        return self._engine is not None

    def load(self, progress: Progress | None = None) -> None:
        """Load encoder, index and base model now; a second call returns at once."""
        tell = progress or (lambda stage, fraction: None)
        with self._loading:
            if self._engine is not None:
                return
            from ramole_core.base_model import load_base
            from ramole_core.engine.engine import Engine, EngineSizes

            s = self.settings
            self._base = load_base(
                s.base_model,
                data_dir=s.data_dir,
                quantization=s.quantization,
                dtype=s.dtype,
                device=s.device,
                progress=lambda stage, fraction: tell(stage, 0.9 * fraction),
            )
            tell("reading the adapters", 0.9)
            self.pool.leave_out_unfit()
            self.retriever.check()
            self._engine = Engine(
                self._base,
                shapes=self._shapes(),
                routers=self._router,
                sizes=EngineSizes(
                    max_batch=s.max_batch,
                    max_queue=s.max_queue,
                    prefill_chunk=s.prefill_chunk,
                    kv_cache_bytes=s.kv_cache_mb * 2**20,
                    device_cache_bytes=s.device_cache_mb * 2**20,
                    host_cache_bytes=s.host_cache_mb * 2**20,
                    units_dir=s.data_dir / "units",
                ),
            )
            self.forget_units()
            tell("warming up", 0.95)
            self._warm_up()
            tell("ready", 1.0)

    @property
    def base(self) -> "BaseModel":
        """The base model; loads on first use."""
        self.load()
        assert self._base is not None
        return self._base

    @property
    def engine(self) -> "Engine":
        """The running model; loads on first use."""
        self.load()
        assert self._engine is not None
        return self._engine

    def retrieve(
        self, text: str, k: int = 3, exclude: Iterable[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The k adapters whose vectors are nearest to the text's, best first (cosine)."""
        return self.retriever.retrieve(text, k=k, exclude=tuple(exclude), owner=owner)

    def neighbours(self, name: str, k: int = 3, owner: str | None = None) -> list[Hit]:
        """The k adapters nearest to this one, itself left out."""
        return self.retriever.neighbours(self.pool.card(name, owner), k=k, owner=owner)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Answer the requests, in order, at most MAX_BATCH at a time; a bad one raises before any
        runs."""
        answers: dict[int, Generation] = {}
        for index, item in self.stream_batch(requests):
            if isinstance(item, Generation):
                answers[index] = item
        return [answers[index] for index in range(len(answers))]

    def stream(self, request: Request) -> Generator[Step, None, Generation]:
        """The answer token by token; the generator's return value is the whole Generation."""
        answer = None
        for _, item in self.stream_batch([request]):
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
    ) -> Generator[tuple[int, Step | Generation], None, None]:
        """Each token of each request as it comes, with the request's index; a Generation ends it.

        All callers, in all threads, share one running batch; a longer list than MAX_BATCH is fed
        in as its rows become free. `session` is whose requests these are (the owner, if not said),
        `address` where they come from (if not said, the session stands for it): addresses take
        turns, and so do the sessions of each. `waiting` is called with a request's index and its
        place in the queue when that changes; 0 means that it runs. `cancelled` is asked again and
        again: once it is true, the rest ends there, with the finish reason `cancelled`; closing
        the iterator does the same. Raises Busy where too many wait already, of all or of this
        address.
        """
        requests = list(requests)
        began = time.perf_counter()
        asked = list(zip(requests, self._choose(requests), strict=True))
        spent = (time.perf_counter() - began) / max(1, len(requests))
        engine = self.engine
        from ramole_core.engine.driving import Follower  # after loading: it imports transformers

        for request in requests:
            engine.check(request)
        follower = Follower(
            engine,
            lambda: self._thread,
            asked,
            session=session,
            address=address,
            cancelled=cancelled,
            waiting=waiting,
        )
        for index, item in follower:
            if isinstance(item, Generation):
                item = replace(item, extra={"retrieve": spent, **item.extra})
            yield index, item

    def start(self) -> None:
        """Step the batch in a thread of its own from now on: what a server does.

        Without it the callers' own threads do it, in turn (scripts, ZeroGPU).
        """
        with self._loading:
            engine = self.engine
            from ramole_core.engine.driving import EngineThread

            if self._thread is None:
                self._thread = EngineThread(engine)

    def forget_units(self) -> None:
        """Delete the packed tensors of adapters that the pool has no more."""
        if self._engine is not None:
            self._engine.store.keep_only(card.content for card in self.pool.all_cards())

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
        chosen = self._choose([request])[0]
        if token_ids is None:
            ids, _ = self.engine.check(request)
            if position >= len(ids):
                wanted = replace(request, max_new_tokens=position - len(ids) + 1, trace=True)
                trace = self.generate([wanted])[0].trace
                ids = trace.token_ids if trace else ids
            token_ids = ids
        if not 0 <= position < len(token_ids):
            raise RamoleError(
                f"position={position}, but the prompt and its answer have {len(token_ids)} tokens; "
                f"choose 0 to {len(token_ids) - 1}."
            )
        bare = replace(request, method="base", adapters=None, weights=None)
        base, mixture = self.engine.next_tokens(
            [(bare, []), (request, chosen)], token_ids[: position + 1], top=top
        )
        return Explanation(base=base, mixture=mixture)

    @property
    def router_checksum(self) -> str | None:
        """SHA-256 of the trained router's file, None where there is none."""
        from ramole_core.composition.router import WEIGHTS

        if not (self.settings.adapters_dir / "_router" / WEIGHTS).is_file():
            return None
        router = self._router("trained")
        return router.checksum if router else None

    def candidates(self, requests: Sequence[Request]) -> "list[list[Chosen]]":
        """The adapters that each request would get, as the engine takes them; for measuring."""
        return self._choose(list(requests))

    def _choose(self, requests: Sequence[Request]) -> "list[list[Chosen]]":
        """The adapters of each request, examined where its method asks for that."""
        return self._chooser.choose_all(
            requests, lambda some, candidates: self.engine.examine(some, candidates)
        )

    def _warm_up(self) -> None:
        """Two tokens of the base and one vector: the first forward of a process is a slow one."""
        self.retriever.embed(["warm up"])
        request = Request("warm up", method="base", raw=True, max_new_tokens=2, trace=False)
        for _ in self.stream(request):
            pass

    def _router(self, kind: str) -> "Router | None":
        from ramole_core.composition import router_for

        return router_for(kind, self.settings.adapters_dir / "_router", shapes=self._shapes())

    def _shapes(self) -> dict[str, tuple[int, int]]:
        """The base model's linear layers, (i, o) each; fetches the base's files on first use."""
        from ramole_core.base_model import fetch_base, read_shapes

        s = self.settings
        return read_shapes(fetch_base(s.base_model, data_dir=s.data_dir))


class _Forgetting:
    """Listens to the pool, so that nothing of a removed adapter stays on disk."""

    def __init__(self, ramole: Ramole):
        self._ramole = ramole

    def added(self, card: "AdapterCard") -> None:
        pass

    def removed(self, card: "AdapterCard") -> None:
        self._ramole.forget_units()
