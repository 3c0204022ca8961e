"""The engine of this process, and the thread that steps it where there is one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate, Response
from ramole_core.engine.engine import Engine, Likely
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.fitting import Fit
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.engine.reader import ModelFacts
from ramole_core.engine.request_stream import RequestStream
from ramole_core.kernels.threads import kernels_alone
from ramole_core.request import Fitting, Generation, Request, Step
from ramole_core.turns import Source, never


class LocalEngine:
    """`Backend` in this process; without `start` its callers step it, in turn."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._thread: EngineThread | None = None

    @property
    def facts(self) -> ModelFacts:
        return self.engine.facts

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.engine.tokenizer

    def read(self, request: Request) -> Prompt:
        return self.engine.read(request)

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Turn] = (),
    ) -> Prepared:
        return self.engine.prepare(request, candidates, prompt, earlier=earlier)

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        return self.engine.examine(prompts, candidates, source=source, cancelled=cancelled)

    def expecting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._thread is None else self._thread.expecting()

    def stream(
        self,
        asked: Sequence[Prepared],
        *,
        session: str = "",
        address: str = "",
        cancelled: Callable[[], bool],
        waiting: Callable[[int, int], None],
        fitting: Callable[[int, Fitting], None],
    ) -> Iterator[tuple[int, Step | Generation]]:
        return iter(
            RequestStream(
                self.engine,
                lambda: self._thread,
                asked,
                session=session,
                address=address,
                cancelled=cancelled,
                waiting=waiting,
                fitting=fitting,
            )
        )

    def fit(self, prepared: Prepared) -> Fit | None:
        return self.engine.fit(prepared)

    def next_tokens(
        self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[Likely]:
        return self.engine.next_tokens(asked, ids, top=top)

    def stats(self) -> Mapping[str, int | float]:
        return self.engine.stats()

    @property
    def idle(self) -> bool:
        return self.engine.scheduler.idle and not (self._thread and self._thread.expects)

    @property
    def alive(self) -> bool:
        """Whether the engine can be stepped: its thread is alive, or callers step it."""
        return self._thread is None or self._thread.alive

    def start(self) -> None:
        if self._thread is None:
            self._thread = EngineThread(self.engine)
            self._thread.start()

    def pack(self, candidate: Candidate) -> None:
        with kernels_alone():  # requests that come meanwhile have the other cores
            self.engine.store.pack(candidate.checksum, candidate.load)

    def keep_only(self, checksums: Iterable[str]) -> None:
        self.engine.store.keep_only(checksums)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()
        self.engine.close()
