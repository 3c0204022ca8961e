"""The state of one request in the engine, from the queue to its last token."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.answer import TokenLogprob
from ramole_core.base.chat_template import turn_end_of
from ramole_core.composition import Candidate
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.engine.decoding import (
    TextStream,
    changed_logits,
    choose_token,
    is_greedy,
    log_probability,
    make_generator,
    skip_draws,
    spell,
)
from ramole_core.engine.draft import Drafts
from ramole_core.engine.kv import KvSequence
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.reader import ModelFacts
from ramole_core.engine.segments import Segment, Segments
from ramole_core.engine.trace import Gates
from ramole_core.errors import RamoleError
from ramole_core.kernels.logprob import token_logprobs
from ramole_core.layers import RowMix
from ramole_core.request import Generation, Request, Step
from ramole_core.turns import Source, source_of

NO_NUMBER = (
    "The model's output is no number: an adapter, or the weight that it was given, is too large "
    "for the model's precision; give it a smaller weight, or leave it out."
)

Result = Step | Generation | PairReading | Exception
Deliver = Callable[["RequestState", Result], None]
"""Called with each token and the end, by the thread that runs the model."""


@dataclass(eq=False)
class RequestState:
    """A submitted request; everything but `cancel` belongs to the scheduler."""

    request: Request
    tokenizer: PreTrainedTokenizerBase
    facts: ModelFacts
    ids: list[int]
    """All tokens that are known: prompt, given ones, and those that were made."""
    prompt_length: int
    segments: Segments
    candidates: tuple[Candidate, ...]
    """The answer's adapters."""
    content: np.ndarray
    """Cache keys of the first tokens."""
    room: int = 0
    """Most tokens that the answer may have: the request's limit, or what the context leaves."""
    extra: dict[str, float] = field(default_factory=dict)
    """Goes into the answer's."""
    number: int = 0
    """In the order of the queue, which sets it."""
    session: str = ""
    address: str = ""
    """Network address of the session; empty: unknown, the session is used instead."""
    deliver: Deliver = lambda *_: None
    sequence: KvSequence | None = None
    """Its keys and values, once it runs."""
    mix: RowMix | None = None
    """The adapters of the segment that is fed now, in the bank."""
    mixed: int = -1
    """Index of that segment."""
    gates: Gates = field(default_factory=Gates)
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float | None = None
    first: float | None = None
    ended: float | None = None
    finish_reason: str = ""
    new: int = 0
    """Generated tokens, here or by an engine before this one."""
    streamed: int = 0
    """Of these, those made by another engine that was lost, but for the last."""
    resumed_token: int | None = None
    """The next token, where another engine had sent it and was lost: it is not chosen anew, so that
    no reader sees two, and it ends the answer where it did."""
    logprobs: list[float] = field(default_factory=list)
    """Of each token of the answer, where its effects are requested; nan of those that were given or
    made elsewhere."""
    reading: PairReading | None = None
    """Pairs that are read for their losses, one at a time, in place of an answer."""
    form: AnswerFormat | None = None
    """Format of the answer; None: any text."""
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    """Of the prompt's tokens that were read, if requested."""
    becomes: int = 0
    """Length of the request that it is read for, where that is longer."""
    draft: Drafts | None = None
    """Its draft tokens, once it decodes beside few others."""
    text: TextStream = field(init=False)
    generator: torch.Generator = field(init=False)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self.text = TextStream(self.tokenizer, stop=self.request.stop)
        self.generator = make_generator(self.request)

    def cancel(self) -> None:
        """End the request at the next step; thread-safe."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def source(self) -> Source:
        return source_of(self.session, self.address)

    @property
    def prompt_ids(self) -> list[int]:
        return self.ids[: self.prompt_length]

    @property
    def tokens(self) -> list[int]:
        return self.ids[self.prompt_length :]

    @property
    def length(self) -> int:
        return self.prompt_length + self.room

    @property
    def fed(self) -> int:
        """The number of tokens whose keys and values are cached."""
        sequence = self.sequence  # which may be taken away while its caller looks
        return 0 if sequence is None else sequence.length

    @property
    def unfed(self) -> int:
        return len(self.ids) - self.fed

    @property
    def segment(self) -> Segment:
        """The segment of the token that is fed next."""
        return self.segments.all[self.segments.at(self.fed)]

    def advance(self, token: int | None, logits: Float[Tensor, "v"]) -> Step:
        """Choose the next token: `token` where the whole batch's was chosen, else from the
        logits."""
        request = self.request
        if self.resumed_token is not None:
            token, self.resumed_token = self.resumed_token, None
            skip_draws(self.generator, request, 1)
        elif token is None:
            token = self._choose(logits.float())
        # on a GPU each look waits for the device, so only the first token is looked at
        if (logits.is_cpu or self.first is None) and not math.isfinite(logits[token].item()):
            raise RamoleError(NO_NUMBER)
        self.first = time.perf_counter() if self.first is None else self.first
        if request.effects:
            self.logprobs += token_logprobs(logits[None], [token])
        self.ids.append(token)
        self.new += 1
        top, text = request.logprobs, self.push(token)
        last = self.segments.all[self.segments.at(self.fed - 1)]
        row = self.gates.last(last) if request.trace else None
        return Step(
            token=token,
            text=text,
            weights=None if row is None else row.weights,
            contribution=None if row is None else row.contribution,
            present=None if row is None else row.present,
            adapters=tuple(c.name for c in self.candidates),
            scores=tuple(c.score for c in self.candidates),
            likelihood=None if top is None else log_probability(logits, token, top=top),
            last=bool(self.finish_reason),
        )

    @cached_property
    def takes_likeliest(self) -> bool:
        """Whether each token is the likeliest by the model's own logits."""
        return is_greedy(self.request) and not self.request.changes_logits

    def _choose(self, logits: Float[Tensor, "v"]) -> int:
        request = self.request
        if request.changes_logits:
            prompt, answer = self.prompt_ids, self.tokens
            logits = changed_logits(logits, request, prompt=prompt, answer=answer, form=self.form)
        return choose_token(logits, request, generator=self.generator)

    def add_prompt_logits(self, logits: Float[Tensor, "n v"], end: int) -> None:
        """Add the logits after the n tokens before `end`, for the prompt's log probabilities."""
        found, top = self.prompt_logprobs, self.request.logprobs or 0
        if not found:
            found.append(TokenLogprob(self.ids[0], None))
        for row, at in enumerate(range(end - len(logits) + 1, min(end + 1, self.prompt_length))):
            found.append(log_probability(logits[row], self.ids[at], top=top))

    def take_pair(self) -> None:
        """Switch to the current pair of `reading`. Only its prompt may come from the cache: after
        the other tokens logits are wanted."""
        assert self.reading is not None
        pair = self.reading.pair
        self.ids = list(pair.ids)
        self.content = self.segments.content(self.ids[: pair.prompt_length])

    def push(self, token: int) -> str:
        """Append a token's text to the answer; ends the request where it is over."""
        ended = token in self.facts.eos and not self.request.ignore_eos
        text = "" if ended else self.text.push(token)
        if self.form is not None and not ended:
            self.form.push(token)
        if self.text.stopped:
            turn_end = turn_end_of(self.tokenizer, raw=self.request.raw)
            self.end("eos" if self.text.stopped == turn_end else "stop")
        elif ended or (self.form is not None and self.form.complete):
            text += self.text.finish()
            self.end("eos")
        elif len(self.ids) - self.prompt_length >= self.room:
            text += self.text.finish()
            self.end("length")
        return text

    def end(self, reason: str) -> None:
        self.finish_reason, self.ended = reason, time.perf_counter()

    def generation(self) -> Generation:
        """The answer, as far as it came."""
        end = time.perf_counter() if self.ended is None else self.ended
        admitted, first = (end if at is None else at for at in (self.admitted, self.first))
        trace = None
        if self.request.trace:
            trace = self.gates.trace(
                self.ids,
                self.segments,
                tokens=spell(self.tokenizer, self.ids),
                prompt_length=self.prompt_length,
                layout=self.facts.layout,
            )
        return Generation(
            text=self.text.text,
            adapters=[c.name for c in self.candidates],
            scores=[c.score for c in self.candidates],
            trace=trace,
            finish_reason=self.finish_reason or "cancelled",
            prompt_tokens=self.prompt_length,
            new_tokens=self.new,
            seconds=end - self.submitted,
            first_token_seconds=first - self.submitted,
            extra={
                "queue": admitted - self.submitted,
                "tokens_per_second": max(self.new - self.streamed - 1, 0) / max(end - first, 1e-9),
                **self.extra,
            },
            prompt_logprobs=tuple(self.prompt_logprobs),
        )
