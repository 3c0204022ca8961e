"""What a caller asks for, and what comes back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ramole_core.errors import RamoleError
from ramole_core.methods import Value


@dataclass(frozen=True)
class Request:
    """One prompt, how to mix adapters for it, how to decode; contradictions raise RamoleError."""

    prompt: str
    method: str = "ramole"
    """A registry name: `base`, `selection`, `mixture`, `fusion`, `ramole`, ..."""
    k: int = 3
    """How many adapters to retrieve; ignored when `adapters` is given."""
    adapters: Sequence[str] | None = None
    """Exactly these adapters, no retrieval; None: retrieve `k`."""
    weights: Sequence[float] | None = None
    """One weight an adapter, in place of the method's own."""
    exclude: Sequence[str] = ()
    """Adapters that retrieval must not return."""
    max_new_tokens: int = 128
    temperature: float = 0.0
    """0: greedy."""
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    """The answer ends before the first of these strings."""
    ignore_eos: bool = False
    system: str | None = None
    """System prompt; None: the chat template's default."""
    raw: bool = False
    """True: the prompt is continued as it is, without the chat template."""
    trace: bool = True
    owner: str | None = None
    """Whose uploads may be used beside the shared pool."""
    options: Mapping[str, Value] | None = field(default=None, kw_only=True)
    """The method's own (`ramole_core.methods`), by name; what is left out has its default."""

    def __post_init__(self):
        for name in ("adapters", "exclude", "stop", "weights"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise RamoleError(
                    f"{name}={value!r} is a string; pass a list, such as [{value!r}]."
                )
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if self.options is not None:
            if not isinstance(self.options, Mapping):
                raise RamoleError(
                    f"options={self.options!r}; pass a mapping from an option's name to its value."
                )
            object.__setattr__(self, "options", dict(self.options))
        _check(self)


def _check(request: Request) -> None:
    def require(good: bool, what: str) -> None:
        if not good:
            raise RamoleError(what)

    r = request
    require(isinstance(r.prompt, str) and bool(r.prompt.strip()), "The prompt is empty; type one.")
    for name in ("k", "max_new_tokens"):
        value = getattr(r, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole, f"{name}={value!r}; give a whole number.")
    for name in ("temperature", "top_p"):
        value = getattr(r, name)
        require(isinstance(value, int | float), f"{name}={value!r}; give a number.")
    require(r.k >= 1, f"k={r.k}; it is the number of adapters to retrieve, at least 1.")
    require(
        r.max_new_tokens >= 1, f"max_new_tokens={r.max_new_tokens}; ask for at least one token."
    )
    require(
        math.isfinite(r.temperature) and r.temperature >= 0,
        f"temperature={r.temperature}; it must be 0 (greedy) or a positive number.",
    )
    require(0 < r.top_p <= 1, f"top_p={r.top_p}; it must be above 0 and at most 1.")
    require(all(r.stop), "A stop string is empty; leave it out.")
    if r.adapters is not None:
        require(bool(r.adapters), "adapters is an empty list; name at least one, or pass None.")
        require(
            len(set(r.adapters)) == len(r.adapters),
            f"adapters names one twice: {list(r.adapters)}.",
        )
        both = sorted(set(r.adapters) & set(r.exclude))
        require(not both, f"{both} stand in both adapters and exclude; take them out of one.")
    if r.weights is not None:
        require(r.adapters is not None, "weights needs adapters: name the adapters they belong to.")
        require(
            len(r.weights) == len(r.adapters or ()),
            f"{len(r.weights)} weights for {len(r.adapters or ())} adapters; give one for each.",
        )
        require(all(math.isfinite(w) for w in r.weights), "weights must be finite numbers.")


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
