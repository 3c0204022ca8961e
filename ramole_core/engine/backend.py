"""The interface between `Ramole` and the engines, wherever they run.

In this process that is one engine (`engine.py`); over a network of them it is
`ramole_core/serving/`. Retrieval, the pool and whose turn it is to choose adapters are never behind
this door.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Unpack, runtime_checkable

from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate, Response
from ramole_core.engine.fitting import Fit
from ramole_core.engine.prompt import Prepared, Prompt, Turn
from ramole_core.engine.prompt_reader import Likely
from ramole_core.engine.reader import ModelFacts
from ramole_core.engine.request_stream import Caller
from ramole_core.request import Generation, Request, Step
from ramole_core.turns import Source, never


@runtime_checkable
class Backend(Protocol):
    """One engine or many; thread-safe."""

    @property
    def facts(self) -> ModelFacts:
        """Facts of the model that all engines run."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        ...

    def read(self, request: Request) -> Prompt:
        """Return the turns as token ids; raises RamoleError where the context is too short."""
        ...

    def prepare(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Turn] = (),
    ) -> Prepared:
        """The request with its adapters; raises RamoleError where a method cannot use them."""
        ...

    def examine(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[Sequence[Candidate]],
        *,
        source: Source = ("", ""),
        cancelled: Callable[[], bool] = never,
    ) -> list[list[Response]]:
        """Each candidate's response to the end of its prompt; the batch goes on meanwhile, and
        sources take turns. Raises Cancelled where `cancelled` is true before all are read; a
        remote engine reads on."""
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """Announce that the caller prepares a request to stream next, so an idle engine may wait
        for it."""
        ...

    def stream(
        self, asked: Sequence[Prepared], **caller: Unpack[Caller]
    ) -> Iterator[tuple[int, Step | Generation]]:
        """Yield every token and answer, with its request's index, as `Ramole.stream_batch` does."""
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
        """Counters since the start and current memory, summed over all engines."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no request runs, waits, or was announced a moment ago."""
        ...

    def start(self) -> None:
        """Step the batches in threads of their own from now on."""
        ...

    def pack(self, candidate: Candidate) -> None:
        """Pack an adapter ahead of its first request. Raises what reading it raises."""
        ...

    def keep_only(self, checksums: Iterable[str]) -> None:
        """Delete the packed files of all other adapters."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
