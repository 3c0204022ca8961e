"""A request in words: its mixing, its decoding, the choice of its adapters, its end."""

from collections.abc import Mapping, Sequence
from html import escape

from ramole_core import Evidence, Request

MAX_NAMED = 4
"""Most adapters in a sentence."""
ENDINGS = {
    "eos": "the model ended its answer",
    "stop": "a stop string was reached",
    "length": "the token limit was reached",
    "cancelled": "stopped by you",
}


def mixed_words(request: Request) -> str:
    """Method, k and its options, or the adapters that were named."""
    said = [request.method]
    if request.mix is not None:
        said.append(f"the mix {request.mix}")
    elif request.adapters is not None:
        each = request.weights or [None] * len(request.adapters)
        named = zip(request.adapters, each, strict=True)
        said += [name if w is None else f"{name} {signed(w)}" for name, w in named]
    elif request.method != "base":
        said.append(f"k = {request.k}")
    said += [f"{name} = {value}" for name, value in (request.options or {}).items()]
    said += [f"never {name}" for name in request.exclude]
    return ", ".join(said)


def signed(number: float, form: str = "g") -> str:
    """A number in this form, with a true minus."""
    return f"{number:{form}}".replace("-", "−")


def counted(count: int, what: str) -> str:
    """`1 token`, `2 tokens`, ..."""
    return f"{count} {what}{'s' * (count != 1)}"


def decoding_words(request: Request) -> str:
    """The decoding in words, and the most tokens."""
    said = ["greedy"]
    if request.temperature:
        said = [f"temperature {request.temperature:g}", f"top-p {request.top_p:g}"]
        said.append("no seed" if request.seed is None else f"seed {request.seed}")
    said += ["no chat template"] if request.raw else []
    said += ["a system prompt"] if request.system else []
    return ", ".join([*said, f"at most {counted(request.max_new_tokens, 'token')}"])


def verdict_html(
    evidence: Evidence | None,
    request: Request | None,
    taken: Mapping[str, float],
    *,
    nearest: bool = False,
) -> str:
    """The decision in one sentence, and the numbers of the rule, where there is one, in a fold.

    `taken` are the adapters that answer, with their similarities; `nearest`: it is known that none
    is nearer."""
    if evidence is None:
        said = "" if request is None else chosen_words(request, taken, nearest=nearest)
        return f'<p class="verdict">{escape(said)}</p>' if said else ""
    return (
        f'<p class="verdict">{escape(verdict(evidence, [*taken]))}</p><details class="evidence">'
        f'<summary>By these numbers</summary><p class="quiet">{escape(evidence.sentence)}</p>'
        "</details>"
    )


def chosen_words(request: Request, taken: Mapping[str, float], *, nearest: bool) -> str:
    """Return how the adapters were chosen, where no evidence decided, in one sentence."""
    if request.method == "base":
        return "You chose the base: no adapter is mixed."
    if request.mix is not None:
        return f"You chose the kept weights {request.mix}."
    if request.adapters is not None:
        return f"You named {_listed([*request.adapters])}."
    if not taken:
        return ""
    who = _listed([*taken])
    if nearest:
        who = f"the {len(taken)} nearest" if len(taken) > 1 else f"{who}, the nearest"
    return f"By {request.method}: {who}."


def _listed(names: Sequence[str]) -> str:
    """All of a few names, the count of many."""
    if len(names) > MAX_NAMED:
        return f"{len(names)} adapters"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def verdict(evidence: Evidence, taken: Sequence[str]) -> str:
    """The decision in one sentence, of those who answer; all numbers of the rule are in
    `Evidence.sentence`."""
    if evidence.decision == "kept":
        return f"No new task, so the adapters of the turn before go on, {evidence.leader} first."
    if evidence.decision == "base":
        return "No adapter fits; the small base model answers by itself."
    if evidence.leader is not None:
        return f"{evidence.leader} fits: it shows no examples, and responds to these words."
    if evidence.nearest is None:
        return "No adapter shows examples, so all that were asked answer."
    needed = f"the most similar one needs about {evidence.threshold:.2f}"
    near = f"similarity {evidence.similarity:.2f}; {needed}"
    if taken and evidence.nearest not in taken:
        return f"{evidence.nearest} is the nearest ({near}), but {taken[0]} comes first."
    first = f"; {taken[0]} comes first" if taken and taken[0] != evidence.nearest else ""
    if evidence.response is None:
        return f"{evidence.nearest} fits ({near}){first}."
    near = f"similarity {evidence.similarity:.2f}, close to the line at {evidence.threshold:.2f}"
    return f"{evidence.nearest} fits, if only just ({near}; the adapters respond){first}."


def ending(reason: str) -> str:
    """The `finish_reason` of an answer in words."""
    return ENDINGS.get(reason, reason)
