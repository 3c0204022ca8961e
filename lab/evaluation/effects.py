"""Whether effects say who did a token: on composed prompts, by deletion, and what they cost.

    python -m lab effects --data DATA

*Composed*: two tasks in one prompt, both right adapters named, the right answers forced
(`composite.py`), so that it is known whose each token is. Per method: percent of the tokens where
the right adapter is ahead of the other by effect, contribution and weight; of all, and of those
that the leader's effect made 1.2 times likelier (CHANGED); and of the answers' halves, whose right
adapter has the larger sum. Intervals are over pairs of tasks.

What adapters do when they are switched off, and what measuring costs, is in `effects_off.py`. The
base and the pool are those that are served, in the served precision.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lab import harness
from lab.evaluation.composite import Composed, compose, make_composite
from lab.evaluation.effects_off import (
    OTHERS,
    ROUNDS,
    Deleted,
    beside,
    deletion,
    summarise_deleted,
)
from lab.evaluation.evaluate import read_rows
from lab.evaluation.intervals import bootstrap, bootstrap_groups
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


class Kept:
    """Finished work, a JSON file each, so that a run goes on where it was stopped."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], object]) -> Any:
        """What is kept under this name, made where it is not there."""
        file = self._folder / f"{name}.json"
        if not file.is_file():
            harness.write_report(file, {"made": make()})
        return json.loads(file.read_text("utf-8"))["made"]


def composed(
    ramole: "Ramole", questions: Sequence[Question], methods: Sequence[str], kept: Kept
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


@contextmanager
def served() -> Iterator["Ramole"]:
    """The system as it is served, with a data folder of its own."""
    from ramole_core.base.fetch import fetch_base
    from ramole_core.ramole import Ramole
    from ramole_core.settings import load_settings

    usual = load_settings()
    folder = fetch_base(usual.base_model, data_dir=usual.data_dir)
    with tempfile.TemporaryDirectory() as made:
        settings = load_settings(
            data_dir=Path(made), base_model=str(folder), chroma_url=None, host_cache_mb=2048
        )
        with Ramole(settings) as ramole:
            ramole.load()
            yield ramole


def facts_of_run(ramole: "Ramole") -> dict[str, object]:
    """What the numbers depend on."""
    from ramole_core.settings import load_settings

    facts = ramole.model_facts
    assert facts is not None
    return {
        "base_model": load_settings().base_model,
        "base_checksum": facts.checksum,
        "quantization": facts.quantization,
        "dtype": facts.dtype,
        "adapters": {card.name: card.sha256 for card in ramole.pool.cards()},
        "weights": ramole.weights_checksums(),
        "changed_nats": CHANGED,
    }


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 6,
    skip: harness.Skip = 0,
    pairs: Annotated[int, typer.Option(help="Pairs of tasks, a composed prompt of each.")] = 60,
    methods: Annotated[str, typer.Option(help="Methods, comma separated.")] = METHODS,
    ordinary: Annotated[int, typer.Option(help="Ordinary rows for deletion; 0: none.")] = 40,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("effects"),
    out: harness.Out = harness.RESULTS / "effects.json",
) -> None:
    """Judge effects by who did it, by deletion and by their cost; the file is written on the way,
    and a run that was stopped goes on from WORK."""
    named = harness.words(methods)
    with served() as ramole:
        facts = facts_of_run(ramole) | {"rows_of_each": rows, "skipped": skip, "seed": seed}
        results = harness.Results(out, facts, threads=threads)
        tasks = read_rows(data, tasks_of_pool(ramole, data), split="dev", count=rows, skip=skip)
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        kept = Kept(work / digest[:12])
        situation = make_composite(
            ramole, lambda asked: [], ramole.base.tokenizer, tasks, seed=seed, pairs=pairs, rows=1
        )
        questions = [question for group in situation.groups.values() for question in group]
        every: list[Judged] = []
        for one in composed(ramole, questions, named, kept):
            every.append(one)
            if one.method == named[-1]:
                results.write(composed=_by_method(every, named))
        prompts = [(task.task, row.inputs) for task in tasks for row in task.rows]
        Random(seed).shuffle(prompts)
        deleted: dict[str, list[Deleted]] = {name: [] for name in named}
        for n, (task, prompt) in enumerate(prompts[:ordinary]):
            for method in named:
                deleted[method] += _deleted(ramole, kept, n, task, prompt, method)
            found = {name: summarise_deleted(own) for name, own in deleted.items() if own}
            results.write(deleted=found)
        measured = beside(ramole, [prompt for _, prompt in prompts], named[0])
        ratios = {
            name: [getattr(one, name) / getattr(other, name) for one, other in measured]
            for name in ("speed", "first_token")
        }
        told = {name: bootstrap(each).rounded(3) for name, each in ratios.items()}
        results.write(beside={"others": OTHERS, "rounds": ROUNDS, **told, "each": ratios})


def tasks_of_pool(ramole: "Ramole", data: Path) -> list[str]:
    """Adapters of the pool that have dev rows."""
    names = [card.name for card in ramole.pool.cards()]
    return sorted(name for name in names if (data / name / "dev.jsonl").is_file())


def _deleted(
    ramole: "Ramole", kept: Kept, n: int, task: str, prompt: str, method: str
) -> list[Deleted]:
    def make() -> object:
        return [asdict(one) for one in deletion(ramole, task, prompt, method, seed=n)]

    return [Deleted(**one) for one in kept.get(f"left-out-{n}-{method}", make)]


def _by_method(every: Sequence[Judged], methods: Sequence[str]) -> Mapping[str, object]:
    found = {name: [one for one in every if one.method == name] for name in methods}
    return {name: summarise(own) for name, own in found.items() if own}
