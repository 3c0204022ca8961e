"""The results of a request: its adapters, each streamed token, the finished answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ramole_core.contribution import shares_of
from ramole_core.evidence import Evidence


@dataclass(frozen=True)
class Trace:
    """The mixing at every position of one request: a plain object that any notebook can plot.

    Row t is that at position t, which predicts token t+1; the last token is never fed, so its row
    is 0 and no adapter is present. `weights` are what the method chose, `contribution` what came of
    it, `present` who has the module at all: an absent one (it lacks the module, is switched off
    there, or belongs to another turn) keeps its share of the weight, and contributes 0.
    """

    tokens: list[str]
    """Text of each token, prompt first; length T."""
    token_ids: list[int]
    prompt_length: int
    """The first `prompt_length` tokens are the prompt (template included)."""
    adapters: list[str]
    """The k adapters, in the order of the last axis."""
    layers: list[int]
    modules: list[str]
    """Short module names (`q_proj`, ...), in the order of the third axis."""
    weights: Float[np.ndarray, "T layer module k"]
    """float16: the share that the method gave, also to an adapter that lacks the module; those that
    a method holds per request are repeated."""
    contribution: Float[np.ndarray, "T layer module k"] | None = None
    """float16, |alpha_j v_j| / |y|: the length of each adapter's weighted update, relative to that
    of the layer's output with everything added. A merge's update is divided by the weights. None:
    from a file that is older than this."""
    present: Bool[np.ndarray, "T layer module k"] | None = None
    """Whether the adapter was at work there. None: from an older file."""

    @property
    def shares(self) -> Float[np.ndarray, "T k"]:
        """Each adapter's share of what they contributed to each token (`contribution.py`)."""
        return shares_of(self.weights, self.contribution, self.present)


@dataclass(frozen=True)
class Selection:
    """Which adapters answer a request, and why: decided once, sent before the first token."""

    adapters: tuple[str, ...] = ()
    """Best first where they were found, in the given order where named; none: the base alone."""
    scores: tuple[float, ...] = ()
    """Cosine similarity of each to the prompt; nan where it was named, or found in another way."""
    evidence: Evidence | None = None
    """Set where the method may leave adapters out, or keep those of the turn before; else None."""
    notes: tuple[str, ...] = ()
    """Results of fetching adapters of the Hub, a sentence each."""
    text: str = ""
    """The part of the prompt that it is for; empty: all of it."""
    later: "tuple[Selection, ...]" = ()
    """Those of the prompt's other parts, in order, where it is answered part by part."""

    @property
    def why(self) -> str:
        """One sentence; empty where nothing was weighed."""
        return "" if self.evidence is None else self.evidence.sentence


class TokenLogprob(NamedTuple):
    """A token's log probability in nats, where requested (`Request.logprobs`)."""

    token: int
    logprob: float | None
    """None: no token before it predicts it."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens there with theirs, best first."""


@dataclass(frozen=True)
class Step:
    """One token as it is streamed."""

    token: int
    text: str
    """The text that this token adds to the answer (it may be empty inside a character)."""
    weights: Float[np.ndarray, "layer module k"] | None
    """The gate that predicted this token; None without a trace."""
    adapters: tuple[str, ...] = ()
    """Adapters of these weights, in the order of k."""
    scores: tuple[float, ...] = ()
    """Cosine similarity of each adapter to the prompt; nan where it was named, or
    shows no examples and was found by its response."""
    contribution: Float[np.ndarray, "layer module k"] | None = None
    """Contributions, relative to each layer's output (`Trace.contribution`)."""
    present: Bool[np.ndarray, "layer module k"] | None = None
    """Which adapters have the module (`Trace.present`)."""
    part: int = 0
    """Index of the prompt's part that it answers, where that is answered part by part."""
    likelihood: TokenLogprob | None = None
    """Its log probability, if requested by `logprobs`."""
    last: bool = False
    """Whether it is the answer's last token."""

    @property
    def shares(self) -> Float[np.ndarray, "k"] | None:
        """Each adapter's share of what they contributed to this token; None without a trace."""
        if self.weights is None:
            return None
        return shares_of(self.weights, self.contribution, self.present)

    def placed(self, row: Float[np.ndarray, "k"], names: Sequence[str]) -> Float[np.ndarray, "n"]:
        """A row over this step's adapters in the order of `names`, 0 for one that it has not: those
        of an answer in parts are all parts'."""
        if self.adapters == tuple(names):
            return row
        own = dict(zip(self.adapters, row, strict=True))
        return np.array([own.get(name, 0.0) for name in names], row.dtype)


@dataclass(frozen=True)
class Fitting:
    """The progress of the search for a request's weights, and its result."""

    method: str
    adapters: tuple[str, ...]
    checksums: tuple[str, ...]
    """Checksums of the adapters' contents."""
    step: int
    """Number of weights tried so far."""
    steps: int
    """Number of weights that are tried in all."""
    weights: tuple[float, ...]
    """The best so far, one an adapter."""
    loss: float
    """Loss of the examples under these weights, nats a token."""
    start: float
    """Loss under the first weights (`lorahub`: all 0, the base alone)."""
    seconds: float
    """Since the search began; 0 where the weights were known from an equal search."""


@dataclass(frozen=True)
class Generation:
    """A finished answer."""

    text: str
    adapters: list[str]
    scores: list[float]
    """Cosine similarity of each adapter to the prompt; nan where it was named, or
    shows no examples and was found by its response."""
    trace: Trace | None
    finish_reason: str
    """`eos`, `stop`, `length` or `cancelled`."""
    prompt_tokens: int
    new_tokens: int
    seconds: float
    first_token_seconds: float
    extra: dict[str, float] = field(default_factory=dict)
    """Timings of the stages, in seconds."""
    evidence: Evidence | None = None
    """Who answers, and why, where adapters were found and the method may leave them out or keep
    those of the turn before; None elsewhere."""
    fitted: Fitting | None = None
    """The weights that a search found for this request; None where nothing was searched."""
    notes: tuple[str, ...] = ()
    """Results of fetching adapters of the Hub, and reasons for missing effects: a sentence each."""
    part: str = ""
    """The part of the prompt that it answers; empty: all of it."""
    parts: "tuple[Generation, ...]" = ()
    """The answers to the prompt's parts, where it was answered part by part; `trace` is the last
    one's, in which the others are earlier turns."""
    method: str | None = None
    """Method of the kept mix that answered (`Request.mix`); None: that of the request."""
    weights: tuple[float, ...] | None = None
    """Its weights, one an adapter."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of each token of the prompt, if requested by `prompt_logprobs`."""

    effects: Float[np.ndarray, "T k"] | None = None
    """Effect of each adapter on each of the T tokens of the answer, given ones included, in nats
    (`ramole_core/effects.py`), float32; row t is that of token `trace.prompt_length + t` of a
    trace. None: not requested, or the answer was cancelled."""
    logprob: Float[np.ndarray, "T"] | None = None
    """Log probability of each token under the distribution of the run, at temperature 1 and before
    `top_p`, in nats, float32; None as `effects`."""
    base_logprob: Float[np.ndarray, "T"] | None = None
    """The same of the base, which reads prompt and answer alone; `logprob` is this and the sum of
    the effects (of up to 4 adapters)."""
    subset_logprob: Float[np.ndarray, "T subset"] | None = None
    """The same with each subset of the k adapters, [T, 2^k], from which the effects are made:
    column c has the adapters whose bit is set in c, the first adapter's being the lowest; the first
    column is `base_logprob`, the last `logprob`. None as `effects`, and with more than 4."""


def parts_record(answer: Generation) -> list[dict[str, object]]:
    """The parts of an answer that came part by part, as plain JSON."""
    return [
        {"prompt": part.part, "text": part.text, "adapters": part.adapters} for part in answer.parts
    ]


def cancelled_answer(began: float) -> Generation:
    """The answer of a request that was cancelled while its adapters were looked up, from `began`
    on, of `time.perf_counter`."""
    spent = time.perf_counter() - began
    return Generation(
        text="",
        adapters=[],
        scores=[],
        trace=None,
        finish_reason="cancelled",
        prompt_tokens=0,
        new_tokens=0,
        seconds=spent,
        first_token_seconds=spent,
    )
