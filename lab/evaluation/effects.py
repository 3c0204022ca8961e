"""Whether effects say who did a token: on composed prompts, and by deletion.

    python -m lab effects --data DATA

*Composed*: two tasks in one prompt, both right adapters named, the right answers forced
(`composite.py`), so that it is known whose each token is. Per method: percent of the tokens where
the right adapter is ahead of the other by effect, contribution and weight; of all, and of those
that the leader's effect made 1.2 times likelier (CHANGED); and of the answers' halves, whose right
adapter has the larger sum. Intervals are over pairs of tasks.

*Deletion*: ordinary rows, answered freely with the adapters that are found. At tokens drawn among
those that an adapter changed, the adapter with the largest, the middle and the smallest effect is
taken away: left out of the request, so that the others read the prompt and the answer so far; and
switched off from that token on (*What if*), with all that was read before. How often does another
token come?
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from lab import harness
from lab.evaluation.composite import Composed, compose, make_composite
from lab.evaluation.evaluate import read_rows
from lab.evaluation.facts import rows_digest
from lab.evaluation.intervals import bootstrap_groups
from lab.evaluation.questions import Question
from ramole_core.contribution import mean_contribution, mean_weights
from ramole_core.effects import CHANGED
from ramole_core.request import Generation, Request

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

METHODS = "mixture,ramole_plus,ramole"
MEASURES = ("effect", "contribution", "weight")
MAX_ANSWER = 240
"""Tokens of a composed answer; longer ones stay out."""
DELETED = 3
"""Tokens of each ordinary row at which adapters are switched off."""


@dataclass(frozen=True)
class Judged:
    """One composed prompt under one method."""

    pair: str
    method: str
    right: dict[str, list[bool]]
    """By measure, for each token of a part: whether the right adapter is ahead."""
    changed: list[bool]
    """Whether the leader's effect reaches CHANGED there."""
    halves: list[bool]
    """Of each part: whether its right adapter has the larger sum of effects."""
    gap: float
    """Largest distance of the run's log probability from what adds up to it, in nats."""
    tokens: int
    seconds: float
    """From the answer's end to its effects."""


def judge(answer: Generation, row: Composed, question: Question, method: str) -> Judged:
    """What the answer's effects, contributions and weights say of its tokens; the answer's last
    token is its own and does not count."""
    trace, effects = answer.trace, answer.effects
    assert trace is not None and trace.contribution is not None and trace.present is not None
    assert effects is not None and answer.logprob is not None and answer.base_logprob is not None
    count = len(row.parts) - 1
    places = slice(trace.prompt_length - 1, trace.prompt_length - 1 + count)
    columns = [answer.adapters.index(name) for name in question.adapters]
    weights, present = trace.weights[places].astype(np.float32), trace.present[places]
    told = {
        "effect": effects[:count],
        "contribution": mean_contribution(trace.contribution[places].astype(np.float32)),
        "weight": mean_weights(weights, present),
    }
    told = {name: values[:, columns] for name, values in told.items()}
    own = [(n, part) for n, part in enumerate(row.parts[:count]) if part is not None]
    halves = [[n for n, p in own if p == part] for part in (0, 1)]
    gap = np.abs(answer.logprob - answer.base_logprob - effects.sum(-1)).max()
    return Judged(
        pair=" and ".join(question.adapters),
        method=method,
        right={
            name: [bool(values[n, part] > values[n, 1 - part]) for n, part in own]
            for name, values in told.items()
        },
        changed=[bool(told["effect"][n].max() >= CHANGED) for n, _ in own],
        halves=[
            bool(told["effect"][rows, part].sum() > told["effect"][rows, 1 - part].sum())
            for part, rows in enumerate(halves)
            if rows
        ],
        gap=float(gap),
        tokens=len(effects),
        seconds=answer.extra["effects"],
    )


def summarise(every: Sequence[Judged]) -> dict[str, object]:
    """One method's line of the table."""

    def percent(pick: Callable[[Judged], Sequence[bool]]) -> dict[str, float]:
        pairs = [(100.0 * value, one.pair) for one in every for value in pick(one)]
        values, groups = zip(*pairs, strict=True)
        return bootstrap_groups(values, groups).rounded(2)

    def moved(name: str) -> Callable[[Judged], Sequence[bool]]:
        return lambda one: [
            right for right, c in zip(one.right[name], one.changed, strict=True) if c
        ]

    return {
        "pairs": len({one.pair for one in every}),
        "tokens": sum(len(one.changed) for one in every),
        "changed": percent(lambda one: one.changed),
        **{name: percent(lambda one, name=name: one.right[name]) for name in MEASURES},
        **{f"{name}, changed": percent(moved(name)) for name in MEASURES},
        "halves by effect": percent(lambda one: one.halves),
        "largest gap in nats": max(one.gap for one in every),
        "tokens of answers": sum(one.tokens for one in every),
        "seconds": round(sum(one.seconds for one in every), 2),
    }


def composed(
    ramole: "Ramole", questions: Sequence[Question], methods: Sequence[str], kept: harness.Kept
) -> Iterator[Judged]:
    """Every prompt under every method, one prompt after the other."""
    for n, question in enumerate(questions):
        row = compose(question, ramole.base.tokenizer)
        if len(row.encoded.answer) > MAX_ANSWER:
            continue
        for method in methods:

            def made(row=row, question=question, method=method) -> object:
                (answer,) = ramole.generate([forced(row, question, method)])
                return asdict(judge(answer, row, question, method))

            yield Judged(**kept.get(f"composed-{n}-{method}", made))


def forced(
    row: Composed, question: Question, method: str, adapters: Sequence[str] | None = None
) -> Request:
    """The right answer given, its effects asked for; `adapters` beside or in place of the right."""
    given = row.encoded.answer[:-1]
    return Request(
        question.prompt,
        method=method,
        adapters=adapters or question.adapters,
        max_new_tokens=len(given) + 1,
        prefix_ids=given,
        ignore_eos=True,
        effects=True,
    )


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


def deletion(ramole: "Ramole", task: str, prompt: str, method: str, *, seed: int) -> list[Deleted]:
    """Tokens of the free answer to one prompt; none where fewer than two adapters answer."""
    asked = Request(
        prompt, method=method, abstain=False, split=False, max_new_tokens=40, effects=True
    )
    (answer,) = ramole.generate([asked])
    trace, effects = answer.trace, answer.effects
    if trace is None or effects is None or len(answer.adapters) < 2:
        return []
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
        sizes = [float(effects[t, e]) for e in chosen]
        found.append(Deleted(task, sizes, came[: len(chosen)], came[len(chosen) :]))
    return found


def _last(answer: Generation) -> int:
    assert answer.trace is not None
    return answer.trace.token_ids[-1]


def summarise_deleted(every: Sequence[Deleted]) -> dict[str, object]:
    """How often the token changes, by whose adapter is switched off."""
    whole = [one for one in every if len(one.other) == 3]
    groups = [one.task for one in whole]
    if not whole:
        return {"tokens": 0}

    def changed(pick: Callable[[Deleted], Sequence[bool]]) -> dict[str, object]:
        return {
            name: bootstrap_groups([100.0 * pick(one)[n] for one in whole], groups).rounded(2)
            for n, name in enumerate(("largest", "middle", "smallest"))
        }

    return {
        "tokens": len(whole),
        "another token comes": changed(lambda one: one.other),
        "another token comes by what if": changed(lambda one: one.switched),
    }


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 6,
    skip: harness.Skip = 0,
    pairs: Annotated[int, typer.Option(help="Pairs of tasks, a composed prompt of each.")] = 60,
    methods: harness.Methods = METHODS,
    ordinary: Annotated[int, typer.Option(help="Ordinary rows for deletion; 0: none.")] = 40,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("effects"),
    out: harness.Out = harness.RESULTS / "effects.json",
) -> None:
    """Judge effects by who did it, and by deletion; the file is written on the way, and a run that
    was stopped goes on from WORK."""
    named = harness.words(methods)
    with harness.served(host_cache_mb=2048) as ramole:
        facts = harness.facts_of(ramole) | {"changed_nats": CHANGED, "rows_of_each": rows}
        tasks = read_rows(data, tasks_of_pool(ramole, data), split="dev", count=rows, skip=skip)
        facts |= {"skipped": skip, "seed": seed, "questions": rows_digest(tasks)}
        results = harness.Results(out, facts, threads=threads)
        kept = harness.Kept(work / harness.digest(facts, 12))
        situation = make_composite(
            ramole, lambda asked: [], ramole.base.tokenizer, tasks, seed=seed, pairs=pairs, rows=1
        )
        questions = [question for group in situation.groups.values() for question in group]
        every: list[Judged] = []
        for one in composed(ramole, questions, named, kept):
            every.append(one)
            if one.method == named[-1]:
                found = {name: [own for own in every if own.method == name] for name in named}
                results.write(composed={name: summarise(own) for name, own in found.items() if own})
        prompts = [(task.task, row.inputs) for task in tasks for row in task.rows]
        Random(seed).shuffle(prompts)
        deleted: dict[str, list[Deleted]] = {name: [] for name in named}
        for n, (task, prompt) in enumerate(prompts[:ordinary]):
            for method in named:

                def made(n=n, task=task, prompt=prompt, method=method) -> object:
                    return [asdict(one) for one in deletion(ramole, task, prompt, method, seed=n)]

                found = kept.get(f"left-out-{n}-{method}", made)
                deleted[method] += [Deleted(**one) for one in found]
            found = {name: summarise_deleted(own) for name, own in deleted.items() if own}
            results.write(deleted=found)


def tasks_of_pool(ramole: "Ramole", data: Path) -> list[str]:
    """Adapters of the pool that have dev rows."""
    names = [card.name for card in ramole.pool.cards()]
    return sorted(name for name in names if (data / name / "dev.jsonl").is_file())
