"""What a caller asks for; what comes back is in `answer.py`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ramole_core.answer import (
    Fitting as Fitting,
    Generation as Generation,
    Step as Step,
    Trace as Trace,
)
from ramole_core.errors import RamoleError
from ramole_core.methods import DEFAULT_METHOD, Value
from ramole_core.request_parts import (
    Exchange,
    read_examples,
    read_history,
    read_later_weights,
    read_prefix,
    read_without,
)

BY_BASE: Mapping[str, object] = {
    "method": "base",
    "adapters": None,
    "weights": None,
    "options": None,
    "exclude": (),
    "examples": (),
    "mix": None,
    "abstain": None,
}
"""The fields that say how adapters are mixed, where none is."""


@dataclass(frozen=True)
class Request:
    """One prompt, how to mix adapters for it, how to decode; contradictions raise RamoleError."""

    prompt: str
    method: str = DEFAULT_METHOD
    """A registry name: `base`, `selection`, `mixture`, `ramole`, `ramole_plus`, ..."""
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
    history: Sequence[Sequence[str | Sequence[str] | None]] = field(default=(), kw_only=True)
    """Earlier turns, oldest first: (user, assistant), or (user, assistant, adapters) for exactly
    these in that turn, with the method's own weights; none at all (`()`): the base alone there.
    Without adapters of its own a turn has the request's where they are named, else what is found
    for its user's text, or where the method keeps them, those of the turn before."""
    prefix_ids: Sequence[int] = field(default=(), kw_only=True)
    """Tokens of the answer that are given already; they count into `max_new_tokens`."""
    without: Sequence[Sequence[str | int | None]] = field(default=(), kw_only=True)
    """What is switched off: (adapter, layer, module), None for all of them, or with a fourth part,
    the position from which on (0: the prompt's first token; by default the last token that is
    given). Without an adapter's name it is the base alone in that layer or module."""
    later_weights: Mapping[str, float] | None = field(default=None, kw_only=True)
    """Fixed weights by adapter from the last token that is given on, in place of the method's own;
    an adapter that is not named there has 0. What came before keeps its weights."""
    abstain: bool | None = field(default=None, kw_only=True)
    """Whether the base answers alone where no adapter that is found fits; None: as the method does
    (`ramole_plus`: yes, the published ones: no). Where adapters are named they answer."""
    drop_turns: bool = field(default=False, kw_only=True)
    """True: where the context is too short, whole turns are dropped from the front; False: an
    error."""

    examples: Sequence[Sequence[str] | Mapping[str, str]] = field(default=(), kw_only=True)
    """(input, target) pairs, about five, for a method that finds its weights on them
    (`lorahub`)."""
    mix: str | None = field(default=None, kw_only=True)
    """The name of a mix that was kept (`Ramole.keep_mix`): its method, adapters and weights."""
    effects: bool = field(default=False, kw_only=True)
    """Whether the answer says what each adapter did to each token (`Generation.effects`); it then
    comes a moment after its last token."""

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
        object.__setattr__(self, "history", read_history(self.history))
        object.__setattr__(self, "examples", read_examples(self.examples))
        object.__setattr__(self, "prefix_ids", read_prefix(self.prefix_ids))
        object.__setattr__(self, "without", read_without(self.without))
        object.__setattr__(self, "later_weights", read_later_weights(self.later_weights) or None)
        _check(self)

    @property
    def turns(self) -> "tuple[Request, ...]":
        """Each turn as a request of its own, oldest first; the last is the one that is answered.

        They say text, method, options, adapters and weights of the turn, and nothing of the
        others'; the system prompt is the same for all, so that a turn keeps its adapters when it
        becomes an earlier one.
        """
        alone = {
            "history": (),
            "prefix_ids": (),
            "without": (),
            "later_weights": None,
            "drop_turns": False,
        }
        if not any(getattr(self, name) for name in alone):
            return (self,)
        last = replace(self, **alone)
        return (*(_earlier(last, turn) for turn in read_history(self.history)), last)

    def turn_by_base(self) -> "Request":
        """The same with its last turn answered by the base alone; earlier turns keep theirs."""
        return replace(self, **BY_BASE)

    def by_base(self) -> "Request":
        """The same text, and the same earlier turns, by the base alone; nothing switched off, and
        no effects."""
        history = [(user, assistant, ()) for user, assistant, *_ in self.history]
        nothing = {"without": (), "later_weights": None, "effects": False}
        return replace(self, history=history, **nothing, **BY_BASE)


def _earlier(last: Request, turn: Exchange) -> Request:
    """An earlier turn of the request whose last turn is given."""
    if turn.adapters is None:
        return replace(last, prompt=turn.user)
    if not turn.adapters:
        return replace(last, prompt=turn.user).turn_by_base()
    found = {"adapters": turn.adapters, "weights": None, "exclude": (), "abstain": None}
    return replace(last, prompt=turn.user, **found)


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
        require(
            not r.examples,
            "weights and examples came, but weights are what is found on examples; leave one of "
            "them out.",
        )
    if r.mix is not None:
        require(
            isinstance(r.mix, str) and bool(r.mix.strip()),
            f"mix={r.mix!r}; give the name of a mix that was kept.",
        )
        said = [name for name in ("adapters", "weights", "examples", "exclude") if getattr(r, name)]
        require(
            not said,
            f"mix={r.mix!r} says which adapters and weights, but {', '.join(said)} came as well; "
            "leave one of them out.",
        )
    require(
        not (r.raw and r.history),
        "history needs the chat template, but raw=True leaves it out; leave one of them out.",
    )
    require(
        r.abstain is None or isinstance(r.abstain, bool),
        f"abstain={r.abstain!r}; give True, False, or None for what the method does.",
    )
    require(
        not (r.abstain and r.adapters),
        "abstain=True, but adapters are named, and these answer; leave one of them out.",
    )
    for name in ("drop_turns", "effects"):
        value = getattr(r, name)
        require(isinstance(value, bool), f"{name}={value!r}; give True or False.")
    require(
        len(r.prefix_ids) < r.max_new_tokens,
        f"prefix_ids has {len(r.prefix_ids)} tokens of the answer, and max_new_tokens="
        f"{r.max_new_tokens} counts them in, so it has ended; ask for more, or give fewer.",
    )
