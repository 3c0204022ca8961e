"""Who answers: what `Ramole` asks of the model, wherever it runs.

In this process that is one engine (`local_engine.py`); over a network of them it is
`ramole_core/serving/`. Retrieval, the pool and whose turn it is to choose adapters are never behind
this door.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate, Response
from ramole_core.engine.engine import Likely
from ramole_core.engine.fitting import Fit
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.engine.reader import ModelFacts
from ramole_core.request import Fitting, Generation, Request, Step


@runtime_checkable
class Backend(Protocol):
    """One engine or many; every thread may use them."""

    @property
    def facts(self) -> ModelFacts:
        """Of the model that all of them run."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's."""
        ...

    def read(self, request: Request) -> Prompt:
        """The request's turns as token ids; raises RamoleError where the context is too short."""
        ...

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Turn] = (),
    ) -> Prepared:
        """A request with its adapters; raises RamoleError where a method cannot use them."""
        ...

    def examine(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Candidate]]
    ) -> list[list[Response]]:
        """What each candidate answers to the end of its prompt."""
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """The caller's thread prepares a request inside that it will stream next: where nothing
        runs, others may wait a moment for it."""
        ...

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
        """Every token and answer, with the index of its request, as `Ramole.stream_batch` says."""
        ...

    def fit(self, prepared: Prepared) -> Fit | None:
        """The search for the request's weights, at its start or known already; None where it needs
        none."""
        ...

    def next_tokens(
        self, asked: Sequence[Prepared], ids: Sequence[int], *, top: int
    ) -> list[Likely]:
        """The `top` likeliest tokens after `ids`, as each request would have them."""
        ...

    def stats(self) -> Mapping[str, int | float]:
        """What was done since the start, and what is held now; of all together."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits, or is being prepared since a moment."""
        ...

    def start(self) -> None:
        """From now on no caller's thread steps a batch."""
        ...

    def pack(self, candidate: Candidate) -> None:
        """Have an adapter packed before a request asks for it, where that is kept. Raises what its
        reading raises."""
        ...

    def keep_only(self, checksums: Iterable[str]) -> None:
        """Delete what was packed of all other adapters."""
        ...

    def close(self) -> None:
        """Give the model back."""
        ...
