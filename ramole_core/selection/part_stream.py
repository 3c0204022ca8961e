"""Answer a prompt part by part, and join the answers.

The parts are turns of a conversation: each runs once the answer before it is there, and includes
it. They share `max_new_tokens`. Of a list of requests the first parts run together, then the second
ones.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np

from ramole_core.effects import among
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request, Step

if TYPE_CHECKING:
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.prompt import Prepared
    from ramole_core.engine.request_stream import Caller

BETWEEN = "\n\n"
"""Separator between the answers to two parts."""
WARNING = "This command deletes or overwrites files; read it before you run it."
DESTROYS = r"rm|rmdir|unlink|shred|dd|mkfs(?:\.\w+)?|mv|truncate|wipefs"
HARMLESS = (
    "awk|cat|chgrp|chmod|chown|cp|cut|diff|du|echo|find|grep|egrep|gzip|gunzip|head|history|ls|"
    "printf|sed|seq|sort|tail|tar|tee|touch|tr|uniq|wc|xargs|zcat"
)
"""Commands that destroy nothing alone, but may with their arguments."""
LINE = re.compile(rf"^\s*(?:\$ )?(?:sudo\s+)?(?:{DESTROYS}|{HARMLESS})\b(?!\s+(?:is|are|was)\b)")
"""A line that is a command."""
NEXT = r"(?:^\s*(?:\$ )?|[|;&(`]\s*|-exec(?:dir)?\s+|-ok\s+|\bxargs\s+(?:-\S+\s+)*)(?:sudo\s+)?"
HARMFUL = re.compile(
    rf"{NEXT}(?:{DESTROYS})\s|\s-delete\b|(?<![>&\d-])(?<!2)>\|?\s*(?!/dev/null|&|>)\S"
    r"|\bsed\s[^|]*\s?-i|\btee\s+(?!-a)\S|\bchmod\s+-R|\bchown\s+-R|\bcp\s"
)
"""A command in such a line that deletes or overwrites files."""
NO_ROOM = "The answers so far filled the context; parts"
Items = Iterator[tuple[int, Step | Generation]]
StreamPrepared = Callable[[Sequence[int], "Sequence[Prepared]"], Items]
"""Streams prepared requests; the first argument is the index of each."""
Follow = Callable[["Prepared", Generation], "Prepared"]
"""The next part of a request, from the part that was answered and its answer; raises RamoleError
where it cannot run."""


def stream_parts(asked: "Sequence[Prepared]", *, run: StreamPrepared, follow: Follow) -> Items:
    """Each token of each request, with the request's index, and its Generation at the end.

    A fault in a later part ends that answer behind the parts that are there; one in a first part is
    raised once all ended.
    """
    due = dict(enumerate(asked))
    answers: dict[int, list[Generation]] = {index: [] for index in due}
    fault: RamoleError | None = None
    while due:
        indexes, running, due = list(due), list(due.values()), {}
        begun: set[int] = set()
        unended = dict(zip(indexes, running, strict=True))
        try:
            for place, item in run(indexes, running):
                index = indexes[place]
                parts = answers[index]
                if isinstance(item, Step):
                    lead = BETWEEN if parts and index not in begun else ""
                    begun.add(index)
                    yield index, replace(item, text=lead + item.text, part=len(parts))
                    continue
                del unended[index]
                if parts and item.finish_reason == "cancelled" and not item.new_tokens:
                    # it was not begun: in its trace those before it have no weights
                    item = replace(parts.pop(), finish_reason="cancelled")
                parts.append(item)
                later = () if item.finish_reason in ("cancelled", "stop") else running[place].later
                if later:
                    try:
                        due[index] = follow(running[place], item)
                        continue
                    except RamoleError:  # the answers before it have filled the context
                        pass
                yield index, join(parts, unanswered=len(later))
        except RamoleError as error:
            late = {index: one for index, one in unended.items() if answers[index]}
            if not late or len(late) < len(unended):
                fault = fault or error
            for index, one in late.items():
                left = 1 + len(one.later)
                yield index, join(answers[index], unanswered=left, why=f"{error} Parts")
    if fault is not None:
        raise fault


def run_by(
    engines: "Backend", requests: Sequence[Request], *, seconds: float, **caller: Unpack["Caller"]
) -> StreamPrepared:
    """What streams parts of these requests by these engines; the caller's indexes are those of the
    requests. The preparation of each took so many `seconds`."""

    def run(indexes: Sequence[int], parts: "Sequence[Prepared]") -> Items:
        at = indexes.__getitem__
        by_part: Caller = {**caller}
        for name in ("waiting", "reading", "fitting"):
            if tell := caller.get(name):
                by_part[name] = lambda n, *how, tell=tell: tell(at(n), *how)
        for n, item in engines.stream(parts, **by_part):
            if isinstance(item, Generation):
                selection, mixed = parts[n].selection, parts[n].request
                item = replace(
                    item,
                    extra={"retrieve": seconds, **item.extra},
                    evidence=selection.evidence,
                    notes=(*selection.notes, *item.notes, *warn_of(item.text)),
                    part=selection.text,
                )
                if requests[at(n)].mix is not None:
                    weights = mixed.weights and tuple(mixed.weights)
                    item = replace(item, method=mixed.method, weights=weights)
            yield n, item

    return run


def join(parts: Sequence[Generation], *, unanswered: int = 0, why: str = NO_ROOM) -> Generation:
    """Join the answers of the parts so far; `why` begins the note on further ones that have no
    answer."""
    if len(parts) == 1 and not parts[0].part:
        return parts[0]
    left = (f"{why} of the prompt that were not answered: {unanswered}.",) if unanswered else ()
    reason = parts[-1].finish_reason
    cut = unanswered or any(part.finish_reason == "length" for part in parts)
    pairs = {name: s for p in reversed(parts) for name, s in zip(p.adapters, p.scores, strict=True)}
    names = list(dict.fromkeys(name for part in parts for name in part.adapters))
    return replace(
        parts[-1],
        finish_reason="length" if cut and reason == "eos" else reason,
        text=BETWEEN.join(p.text for n, p in enumerate(parts) if not n or p.new_tokens),
        adapters=names,
        scores=[pairs[name] for name in names],
        new_tokens=sum(part.new_tokens for part in parts),
        seconds=sum(part.seconds for part in parts),
        first_token_seconds=parts[0].first_token_seconds,
        extra=parts[0].extra,
        evidence=parts[0].evidence,
        notes=tuple(dict.fromkeys([*(note for part in parts for note in part.notes), *left])),
        part="",
        parts=tuple(parts),
        effects=_effects(parts, names),
        logprob=_joined([part.logprob for part in parts]),
        base_logprob=_joined([part.base_logprob for part in parts]),
        subset_logprob=_joined(
            [
                among(part.subset_logprob, [names.index(one) for one in part.adapters], len(names))
                for part in parts
            ]
        ),
    )


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Concatenate; None where one is missing."""
    found = [one for one in arrays if one is not None]
    return np.concatenate(found) if len(found) == len(arrays) else None


def _effects(parts: Sequence[Generation], names: Sequence[str]) -> np.ndarray | None:
    """Join the effects of all parts, [T, k] of these adapters: 0 where one was not in a part."""
    placed: list[np.ndarray | None] = []
    for part in parts:
        if part.effects is None:
            return None
        rows = np.zeros((len(part.effects), len(names)), np.float32)
        rows[:, [names.index(name) for name in part.adapters]] = part.effects
        placed.append(rows)
    return _joined(placed)


def warn_of(text: str) -> tuple[str, ...]:
    """WARNING where a line of the text is such a command; else nothing."""
    lines = (line for line in text.splitlines() if LINE.match(line))
    return (WARNING,) if any(HARMFUL.search(line) for line in lines) else ()
