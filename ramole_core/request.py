"""A request; its results are in `answer.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, get_type_hints

from ramole_core.answer import (
    Fitting as Fitting,
    Generation as Generation,
    Step as Step,
    Trace as Trace,
)
from ramole_core.errors import WrongField, did_you_mean
from ramole_core.methods import DEFAULT_METHOD, Value
from ramole_core.request_check import check_request
from ramole_core.request_fields import Takes
from ramole_core.request_parts import (
    Exchange,
    read_examples,
    read_history,
    read_later_weights,
    read_messages,
    read_tokens,
    read_without,
    short,
)
from ramole_core.sampling import Sampling

BASE_FIELDS: Mapping[str, object] = {
    "method": "base",
    "adapters": None,
    "weights": None,
    "options": None,
    "exclude": (),
    "examples": (),
    "mix": None,
    "abstain": None,
}
"""Values of the mixing fields of a request by the base alone."""


@dataclass(frozen=True)
class Request(Sampling):
    """One prompt, how to mix adapters for it, how to decode; contradictions raise RamoleError."""

    prompt: Annotated[str, Takes("text", "The question or task.", option="")]
    method: Annotated[str, Takes("word", "How the adapters are mixed.")] = DEFAULT_METHOD
    """A registry name: `base`, `selection`, `mixture`, `ramole`, `ramole_plus`, ..."""
    k: Annotated[
        int, Takes("whole", "How many adapters to retrieve; ignored where some are named.", 1)
    ] = 3
    adapters: Annotated[
        Sequence[str] | None,
        Takes("words", "Exactly these adapters, in this order; no retrieval.", option="adapter"),
    ] = None
    """None: retrieve `k`."""
    weights: Annotated[
        Sequence[float] | None,
        Takes(
            "numbers",
            "One weight for each named adapter, in place of the method's own.",
            option="weight",
        ),
    ] = None
    exclude: Annotated[
        Sequence[str], Takes("words", "Adapters that retrieval must not return.")
    ] = ()
    max_new_tokens: Annotated[int, Takes("whole", "The longest answer, in tokens.", 1)] = 128
    temperature: Annotated[
        float, Takes("number", "0 takes the likeliest token; larger values draw more freely.", 0)
    ] = 0.0
    top_p: Annotated[
        float, Takes("number", "Draw from this much of the probability.", 0, 1, above=True)
    ] = 1.0
    seed: Annotated[int | None, Takes("whole", "Seed of the drawing.", -(2**63), 2**63 - 1)] = None
    """None: by chance, where there is a temperature."""
    stop: Annotated[
        Sequence[str], Takes("texts", "The answer ends before any of these texts.")
    ] = ()
    ignore_eos: Annotated[
        bool, Takes("truth", "Go on to the longest answer, past the model's end of text.")
    ] = False
    system: Annotated[str | None, Takes("text", "System prompt.")] = None
    """None: the chat template's default."""
    raw: Annotated[bool, Takes("truth", "Continue the prompt as it is, without chat template.")] = (
        False
    )
    trace: bool = True
    owner: str | None = None
    """Owner whose uploads may be used beside the shared pool."""
    options: Annotated[
        Mapping[str, Value] | None,
        Takes("options", "The method's own options, by name.", option="option"),
    ] = field(default=None, kw_only=True)
    """Options that are left out have their defaults (`ramole_core.methods`)."""
    history: Annotated[
        Sequence[Sequence[str | Sequence[str] | None]],
        Takes(
            "parts",
            "Earlier turns, oldest first: [user, assistant], or [user, assistant, adapters].",
            parts=read_history,
        ),
    ] = field(default=(), kw_only=True)
    """With adapters: exactly these in that turn, with the method's own weights; none at all (`()`):
    the base alone there. Without adapters of its own a turn has the request's where they are named,
    else what is found for its user's text, or where the method keeps them, those of the turn
    before."""
    prefix_ids: Annotated[
        Sequence[int],
        Takes(
            "parts",
            "Tokens of the answer that are given already.",
            option="",
            parts=lambda given: read_tokens("prefix_ids", given),
        ),
    ] = field(default=(), kw_only=True)
    """They count into `max_new_tokens`."""
    without: Annotated[
        Sequence[Sequence[str | int | None]],
        Takes(
            "parts",
            "What is switched off: [adapter, layer, module], null for all; or with a position, or "
            "'turn'.",
            option="",
            parts=read_without,
        ),
    ] = field(default=(), kw_only=True)
    """A fourth part is the position from which on (0: the prompt's first token; by default the last
    token that is given). Without an adapter's name it is the base alone in that layer or module.
    `(adapter, None, None, "turn")` leaves the adapter out of the turn that is answered, as though
    it had not been found: a run of what its effects are made of."""
    later_weights: Annotated[
        Mapping[str, float] | None,
        Takes(
            "parts",
            "Fixed weights by adapter from the last token that is given on.",
            option="",
            parts=lambda given: read_later_weights(given) or None,
        ),
    ] = field(default=None, kw_only=True)
    """In place of the method's own; an adapter that is not named there has 0. Earlier tokens keep
    their weights."""
    abstain: Annotated[
        bool | None, Takes("truth", "The base may answer where no adapter fits, or may not.")
    ] = field(default=None, kw_only=True)
    """None: as the method does (`ramole_plus`: yes, the published ones: no). Where adapters are
    named they answer."""
    split: Annotated[
        bool | None,
        Takes("truth", "Answer a prompt part by part where its parts find different adapters."),
    ] = field(default=None, kw_only=True)
    """Each part by its own, with the answers before it; they share `max_new_tokens`. None: as the
    method does (`ramole_plus`: yes)."""
    drop_turns: Annotated[
        bool, Takes("truth", "Drop the oldest turns where the conversation does not fit.")
    ] = field(default=False, kw_only=True)
    """False: what does not fit is an error."""
    examples: Annotated[
        Sequence[Sequence[str] | Mapping[str, str]],
        Takes(
            "parts",
            "Pairs [input, target], about five, for a method that finds its weights on them.",
            parts=read_examples,
        ),
    ] = field(default=(), kw_only=True)
    mix: Annotated[
        str | None, Takes("word", "A mix that was kept: its method, adapters and weights.")
    ] = field(default=None, kw_only=True)
    """A name that `Ramole.keep_mix` was given."""
    prompt_ids: Annotated[
        Sequence[int],
        Takes(
            "parts",
            "The prompt as tokens, in the place of those of its text; needs raw.",
            option="",
            parts=lambda given: read_tokens("prompt_ids", given),
        ),
    ] = field(default=(), kw_only=True)
    """Adapters are still found for the prompt's text."""
    messages: Annotated[
        Sequence[Sequence[str]],
        Takes(
            "parts",
            "The whole conversation as [role, text], in any order that the chat template takes.",
            option="",
            parts=read_messages,
        ),
    ] = field(default=(), kw_only=True)
    """In the place of `system`, `history` and the prompt's text, for which adapters are still
    found. All of it is one turn: mixed alike."""
    effects: Annotated[
        bool, Takes("truth", "Measure what each adapter did to each token of the answer.")
    ] = field(default=False, kw_only=True)
    """`Generation.effects`; the answer then comes a moment after its last token."""

    def __post_init__(self):
        for name, takes in FIELDS.items():
            if (value := getattr(self, name)) is not None or DEFAULTS.get(name) is not None:
                object.__setattr__(self, name, takes.read(name, value))
        check_request(self)

    @property
    def turns(self) -> "tuple[Request, ...]":
        """Each turn as a request of its own, oldest first; the last is the one that is answered.

        They have text, method, options, adapters and weights of that turn alone; the system prompt
        is the same for all, so that a turn keeps its adapters when it becomes an earlier one.
        """
        alone = {
            "history": (),
            "prefix_ids": (),
            "without": (),
            "later_weights": None,
            "split": None,
            "drop_turns": False,
        }
        if not any(getattr(self, name) for name in alone):
            return (self,)
        last = replace(self, **alone)
        return (*(_earlier(last, turn) for turn in read_history(self.history)), last)

    def turn_by_base(self) -> "Request":
        """The request with its last turn answered by the base alone; earlier turns keep theirs."""
        return replace(self, **BASE_FIELDS)

    def by_base(self) -> "Request":
        """The request by the base alone, earlier turns too; nothing switched off, and no
        effects."""
        history = [(user, assistant, ()) for user, assistant, *_ in self.history]
        nothing = {"without": (), "later_weights": None, "effects": False}
        return replace(self, history=history, **nothing, **BASE_FIELDS)


def _earlier(last: Request, turn: Exchange) -> Request:
    """An earlier turn of the request whose last turn is given; with the same adapters it has the
    same weights."""
    if turn.adapters is None:
        return replace(last, prompt=turn.user)
    if not turn.adapters:
        return replace(last, prompt=turn.user).turn_by_base()
    weights = last.weights if turn.adapters == tuple(last.adapters or ()) else None
    found = {"adapters": turn.adapters, "weights": weights, "exclude": (), "abstain": None}
    return replace(last, prompt=turn.user, **found)


FIELDS: Mapping[str, Takes] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Request, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
"""Fields that a caller may set, by name, in the order of every list: all but `trace` and `owner`,
which the interface sets."""
DEFAULTS: Mapping[str, object] = {one.name: one.default for one in fields(Request)} | {"prompt": ""}


def askable_fields() -> Mapping[str, tuple[Takes, object]]:
    """The fields of a request by name: what each takes, and its default."""
    return {name: (takes, DEFAULTS[name]) for name, takes in FIELDS.items()}


def is_unsaid(name: str, value: object) -> bool:
    """Whether plain data leaves the field to its default: null, or an empty text or object."""
    if isinstance(value, str):
        return name != "prompt" and not value.strip()
    return value is None or (name == "options" and value == {})


def read_request(
    said: Mapping[str, object], *, owner: str | None = None, trace: bool = True
) -> Request:
    """The request of plain data, such as a JSON object or a row of a table; where a number or a
    list is wanted, a text is parsed. Raises RamoleError (WrongField where one field is wrong)."""
    asked: dict[str, object] = {}
    for name, value in said.items():
        if name not in FIELDS:
            near = did_you_mean(name, FIELDS)
            shown = name if name.isprintable() and len(name) <= 60 else short(name)
            raise WrongField(shown, f"={short(value)}; a request has no such field.{near}")
        if not is_unsaid(name, value):
            value = FIELDS[name].parse(name, value) if isinstance(value, str) else value
            asked[name] = FIELDS[name].read(name, value)
    return Request(**{"prompt": "", **asked}, owner=owner, trace=trace)  # pyright: ignore[reportArgumentType] read just now
