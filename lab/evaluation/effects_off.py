"""Effects put to the test: adapters switched off where they did most, and what measuring costs.

*Deletion*: ordinary rows, answered freely with the adapters that are found. At tokens drawn among
those that an adapter changed, the adapter with the largest, the middle and the smallest effect is
taken away: left out of the request, so that the others read the prompt and the answer so far; and
switched off from that token on (*What if*), with all that was read before. How often does another
token come? Of What if also how far the leader's switch moves the token's own log probability.

*Cost*: others' tokens a second, and the first token of one who comes, while one answer's effects
are measured, over those where it asks for none, in turns.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from lab.evaluation.intervals import bootstrap_groups
from ramole_core.effects import CHANGED
from ramole_core.request import Generation, Request, Step

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

DELETED = 3
"""Tokens of each ordinary row at which adapters are switched off."""
OTHERS, ROUNDS, LENGTH = 8, 36, 96
"""Requests beside the one that asks for effects, how often that is measured, and their tokens."""


@dataclass(frozen=True)
class Deleted:
    """One token of an ordinary answer, with its adapters switched off one by one."""

    task: str
    effects: list[float]
    """Of those that are switched off, the largest, the middle and the smallest."""
    other: list[bool]
    """Whether another token came where it was left out."""
    switched: list[bool]
    """Whether one came where it was switched off from there on."""
    what_if: float
    """By how much the switched-off leader moves the token's log probability; nan: too unlikely
    to be seen."""


def deletion(ramole: "Ramole", task: str, prompt: str, method: str, *, seed: int) -> list[Deleted]:
    """Tokens of the free answer to one prompt; none where fewer than two adapters answer."""
    asked = Request(
        prompt, method=method, abstain=False, split=False, max_new_tokens=40, effects=True
    )
    (answer,) = ramole.generate([asked])
    trace, effects = answer.trace, answer.effects
    if trace is None or effects is None or len(answer.adapters) < 2:
        return []
    assert answer.logprob is not None
    ids, first = trace.token_ids, trace.prompt_length
    places = [t for t in range(len(effects)) if effects[t].max() >= CHANGED]
    found = []
    for t in sorted(Random(f"{seed}/{prompt}").sample(places, min(DELETED, len(places)))):
        order = np.argsort(-effects[t])
        chosen = list(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))
        given = {"prefix_ids": ids[first : first + t], "max_new_tokens": t + 1, "effects": False}
        plain, names = replace(asked, **given), answer.adapters
        off = [replace(plain, without=[(names[e], None, None, first + t - 1)]) for e in chosen]
        out = [replace(plain, adapters=[*names[:e], *names[e + 1 :]], abstain=None) for e in chosen]
        came = [_last(one) != ids[first + t] for one in ramole.generate([*out, *off])]
        likely = ramole.explain(off[0], first + t - 1, top=200, token_ids=ids)
        chances = dict(zip(likely.mixture_ids, (c for _, c in likely.mixture), strict=True))
        chance = chances.get(ids[first + t], float("nan"))
        found.append(
            Deleted(
                task,
                [float(effects[t, e]) for e in chosen],
                came[: len(chosen)],
                came[len(chosen) :],
                float(answer.logprob[t] - np.log(chance)),
            )
        )
    return found


def _last(answer: Generation) -> int:
    assert answer.trace is not None
    return answer.trace.token_ids[-1]


def summarise_deleted(every: Sequence[Deleted]) -> dict[str, object]:
    """How often the token changes, by whose adapter is switched off, and how What if agrees."""
    whole = [one for one in every if len(one.other) == 3]
    groups = [one.task for one in whole]
    if not whole:
        return {"tokens": 0}

    def changed(pick: Callable[[Deleted], Sequence[bool]]) -> dict[str, object]:
        return {
            name: bootstrap_groups([100.0 * pick(one)[n] for one in whole], groups).rounded(2)
            for n, name in enumerate(("largest", "middle", "smallest"))
        }

    seen = [one for one in every if one.what_if == one.what_if]
    pairs = np.array([(one.effects[0], one.what_if) for one in seen])
    ranks = pairs.argsort(0).argsort(0)
    return {
        "tokens": len(whole),
        "another token comes": changed(lambda one: one.other),
        "another token comes by what if": changed(lambda one: one.switched),
        "what if, tokens": len(seen),
        "what if lowers the token too": 100.0 * float((pairs[:, 1] > 0).mean()),
        "what if, rank correlation": float(np.asarray(np.corrcoef(ranks.T))[0, 1]),
    }


@dataclass(frozen=True)
class Others:
    """What others have beside one answer."""

    speed: float
    """Tokens a second of those that run."""
    first_token: float
    """Seconds to that of one who comes when the answer's last token is there."""


def beside(ramole: "Ramole", prompts: Sequence[str], method: str) -> list[tuple[Others, Others]]:
    """With one answer's effects measured, and without, in turns."""
    others = [
        Request(prompt, method=method, max_new_tokens=LENGTH, ignore_eos=True, trace=False)
        for prompt in prompts[1 : OTHERS + 1]
    ]
    asks = Request(prompts[0], method=method, max_new_tokens=24, ignore_eos=True, abstain=False)
    found = [
        _others(ramole, replace(asks, effects=bool(n % 2)), others) for n in range(2 * ROUNDS + 6)
    ][6:]  # the first ones read adapters and prompts that were never read
    return list(zip(found[1::2], found[::2], strict=True))


def _others(ramole: "Ramole", asks: Request, others: Sequence[Request]) -> Others:
    came, ends, late = 0, [], []
    comes = replace(others[0], max_new_tokens=1)

    def ask_late() -> None:
        began = time.perf_counter()
        next(iter(ramole.stream_batch([comes])))
        late.append(time.perf_counter() - began)

    thread, began = threading.Thread(target=ask_late), time.perf_counter()
    for index, item in ramole.stream_batch([asks, *others]):
        if index:
            ends += [time.perf_counter() - began] if isinstance(item, Generation) else []
        elif isinstance(item, Step):
            came += 1
            if came == asks.max_new_tokens:
                thread.start()
    thread.join()
    return Others(LENGTH * len(others) / max(ends), late[0])
