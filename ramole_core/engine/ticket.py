"""One request on its way through the engine, from the queue to its last token."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from ramole_core.engine.kv import Arena
from ramole_core.engine.request import Generation, Request, Step, Trace
from ramole_core.engine.sampling import choose_token, make_generator
from ramole_core.engine.text import TextStream
from ramole_core.layers import Layout, Line, LoraSet


@dataclass(frozen=True)
class Chosen:
    """One adapter of a request: its name, similarity, content checksum, and how to read it."""

    name: str
    score: float
    checksum: str
    load: Callable[[], LoraSet]
    surprise: float = float("nan")
    """How much louder than usual it answers to the prompt, in spreads; nan where nobody asked."""


@dataclass(eq=False)
class Ticket:
    """What `Scheduler.submit` gives back; everything but `cancel` belongs to the scheduler."""

    number: int
    request: Request
    session: str
    prompt_ids: list[int]
    chosen: tuple[Chosen, ...]
    room: int
    """Most tokens that may be generated: the request's wish, or what the context leaves."""
    text: TextStream
    generator: torch.Generator
    address: str = ""
    """Where the session comes from; empty: unknown, the session stands for it."""
    deliver: Callable[["Ticket", "Step | Generation | Exception"], None] = lambda ticket, item: None
    """Called with each token and the end, by the thread that runs the model."""
    line: Line | None = None
    """Its adapters in the bank, once it runs."""
    arena: Arena | None = None
    read: int = 0
    """Prompt tokens that were fed."""
    past: Cache | None = None
    """Keys and values of a prompt that is read in chunks."""
    tokens: list[int] = field(default_factory=list)
    gates: list[Float[Tensor, "_ layer module k"]] = field(default_factory=list)
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    finish_reason: str = ""
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """End it at the next step; from any thread."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt_ids) + self.room

    def advance(
        self,
        token: int | None,
        logits: Float[Tensor, "v"],
        gates: Float[Tensor, "l layer module k"] | None,
        eos: frozenset[int],
    ) -> Step:
        """The next token: `token` where it was chosen for the whole batch, else from the logits.

        `gates` are the weights at the positions that this forward fed, if they are traced.
        """
        request = self.request
        if token is None:
            token = choose_token(logits.float(), request, generator=self.generator)
        weights = None
        if gates is not None:
            self.gates.append(gates)
            weights = gates[-1].numpy()
        self.first = self.first or time.perf_counter()
        self.tokens.append(token)
        ended = token in eos and not request.ignore_eos
        text = "" if ended else self.text.push(token)
        if self.text.stopped:
            self.end("stop")
        elif ended:
            text += self.text.finish()
            self.end("eos")
        elif len(self.tokens) >= self.room:
            text += self.text.finish()
            self.end("length")
        return Step(
            token=token,
            text=text,
            weights=weights,
            adapters=tuple(c.name for c in self.chosen),
            scores=tuple(c.score for c in self.chosen),
        )

    def end(self, reason: str) -> None:
        self.finish_reason, self.ended = reason, time.perf_counter()

    def generation(self, tokenizer: PreTrainedTokenizerBase, layout: Layout) -> Generation:
        """The answer, as far as it came."""
        end = self.ended or time.perf_counter()
        decoding = max(end - (self.first or end), 1e-9)
        return Generation(
            text=self.text.text,
            adapters=[c.name for c in self.chosen],
            scores=[c.score for c in self.chosen],
            trace=self._trace(tokenizer, layout) if self.request.trace else None,
            finish_reason=self.finish_reason or "cancelled",
            prompt_tokens=len(self.prompt_ids),
            new_tokens=len(self.tokens),
            seconds=end - self.submitted,
            first_token_seconds=(self.first or end) - self.submitted,
            extra={
                "queue": (self.admitted or end) - self.submitted,
                "tokens_per_second": max(len(self.tokens) - 1, 0) / decoding,
            },
        )

    def _trace(self, tokenizer: PreTrainedTokenizerBase, layout: Layout) -> Trace:
        ids = self.prompt_ids + self.tokens
        places = layout.places
        k = len(self.chosen)
        weights = np.zeros((len(ids), len(places.layers), len(places.modules), k), np.float16)
        if self.gates:
            fed = torch.cat(self.gates).numpy()
            weights[: len(fed)] = fed
        return Trace(
            tokens=spell(tokenizer, ids),
            token_ids=ids,
            prompt_length=len(self.prompt_ids),
            adapters=[c.name for c in self.chosen],
            layers=list(places.layers),
            modules=list(places.modules),
            weights=weights,
        )


def new_ticket(
    number: int,
    request: Request,
    *,
    session: str,
    address: str = "",
    prompt_ids: list[int],
    chosen: tuple[Chosen, ...],
    room: int,
    tokenizer: PreTrainedTokenizerBase,
) -> Ticket:
    """A ticket that waits."""
    return Ticket(
        number=number,
        request=request,
        session=session,
        address=address,
        prompt_ids=prompt_ids,
        chosen=chosen,
        room=room,
        text=TextStream(tokenizer, stop=request.stop),
        generator=make_generator(request),
    )


def spell(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each token by itself; half a character shows as the replacement sign."""
    return [str(tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in ids]
