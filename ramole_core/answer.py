"""What comes back of a request: its trace, each token as it is streamed, the finished answer."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ramole_core.evidence import Evidence


@dataclass(frozen=True)
class Trace:
    """The gate at every position of one request: a plain object that any notebook can plot.

    Row t of `weights` is the gate at position t, which predicts token t+1; the last token is never
    fed, so its row is 0. Weights that a method holds per request are broadcast.
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
    """float16; 0 where an adapter lacks the module."""


@dataclass(frozen=True)
class Step:
    """One token as it is streamed."""

    token: int
    text: str
    """The text that this token adds to the answer (it may be empty inside a character)."""
    weights: Float[np.ndarray, "layer module k"] | None
    """The gate that predicted this token; None without a trace."""
    adapters: tuple[str, ...] = ()
    """Whose weights they are, in the order of k."""
    scores: tuple[float, ...] = ()
    """Cosine similarity of each adapter to the prompt; nan where it was named, not retrieved."""


@dataclass(frozen=True)
class Generation:
    """A finished answer."""

    text: str
    adapters: list[str]
    scores: list[float]
    """Cosine similarity of each adapter to the prompt; nan where it was named, not retrieved."""
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
