"""*Composite-n*: several questions of several tasks in one prompt, answered in turn.

    python -m lab composite_n --data DATA --n 2,3 --systems meteora,base

The stress case of MeteoRA (arXiv 2405.13053). As there, a prompt shows two examples of such n
questions and their numbered answers, then asks n others. The answer is written freely, cut at its
numbers, and each part scored by its task's metric. The trace says who wrote a part: the share of
its tokens at which its own adapter contributed most. Intervals are over sets of questions. Methods
of a fixed pool mix all of it; others what they find for the whole prompt, or where they are named
the n right adapters.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lab import harness
from lab.evaluation.asking import Answering
from lab.evaluation.cells import Cells
from lab.evaluation.command import opened
from lab.evaluation.evaluate import Rows, read_rows
from lab.evaluation.facts import own_facts, shared_facts
from lab.evaluation.metrics import score
from lab.evaluation.questions import Found, Question, Situation
from lab.evaluation.report import make_situation_table, show_situation
from lab.evaluation.situation_run import run_situations
from lab.evaluation.systems import read_way
from ramole_core.contribution import shares_of
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request, Trace
from ramole_core.terminal.console import say
from ramole_core.training.rows import Row

SHOTS = 2
"""Examples before the questions."""
MAX_LENGTH = 300
"""Letters of a question or an answer; rows with longer ones, or answers of lines, stay out."""
ANSWERS = "\n"
"""Between the parts of a question's target."""
NUMBER = re.compile(r"(?m)^[ \t]*(\d+)[.):][ \t]*")
Span = tuple[int, int]


def short(rows: Sequence[Rows]) -> dict[str, list[Row]]:
    """The rows that fit among others, by task; a task without any is left out."""

    def fits(row: Row) -> bool:
        return max(map(len, (row.inputs, row.targets))) <= MAX_LENGTH and "\n" not in row.targets

    kept = {task.task: [row for row in task.rows if fits(row)] for task in rows}
    return {task: found for task, found in kept.items() if found}


def draw_sets(names: Sequence[str], n: int, count: int, *, seed: int) -> list[tuple[str, ...]]:
    """`count` sets of n different names in some order, each name about equally often."""
    chance, order, sets = random.Random(f"{seed}/composite {n}"), [], []
    while len(sets) < count:
        while len(set(order)) < n:
            order += chance.sample(sorted(names), len(names))
        one = list(dict.fromkeys(order))[:n]
        for name in one:
            order.remove(name)
        sets.append(tuple(one))
    return sets


def write_prompt(asked: Sequence[Row], examples: Sequence[Sequence[Row]]) -> str:
    """The examples with their answers, then the questions."""
    texts = [
        f"Example {n}:\n\n{_questions(rows)}\n\n{_numbered([row.targets for row in rows])}"
        for n, rows in enumerate(examples, start=1)
    ]
    lead = "Answer each of the questions below in turn, with its number:"
    return "\n\n\n".join([*texts, f"{lead}\n\n{_questions(asked)}"])


def _questions(rows: Sequence[Row]) -> str:
    return "\n\n".join(row.inputs for row in rows)


def _numbered(answers: Sequence[str]) -> str:
    return "\n".join(f"{n}. {text}" for n, text in enumerate(answers, start=1))


def cut(text: str, n: int) -> list[Span]:
    """Where each of the n answers stands in the text: after its number, up to the next one's; where
    there are no numbers, line by line; empty where there is none."""
    found: list[tuple[int, int]] = []
    for match in NUMBER.finditer(text):
        if len(found) < n and int(match[1]) == len(found) + 1:
            found.append(match.span())
    if not found:
        found = [(m.start(), m.start()) for m in re.finditer(r"(?m)^.*\S", text)][:n]
    found += [(len(text), len(text))] * (n + 1 - len(found))
    return [(start, end) for (_, start), (end, _) in pairwise(found)]


def led_shares(
    trace: Trace, answer: Sequence[str], spans: Sequence[Span], names: Sequence[str]
) -> list[float]:
    """Percent of each part's tokens at which its own adapter contributed most; 0 for one that has
    no tokens. `answer` are the answer's tokens."""
    first = trace.prompt_length - 1  # row t predicts token t + 1
    shares = shares_of(trace.weights, trace.contribution, trace.present)[first:]
    starts = np.cumsum([0, *map(len, answer)])[:-1]
    led = []
    for (low, high), name in zip(spans, names, strict=True):
        rows = [n for n, at in enumerate(starts) if low <= at < high]
        own = trace.adapters.index(name) if name in trace.adapters else None
        won = [n for n in rows if own is not None and shares[n].max() > 0]
        led.append(100 * sum(shares[n].argmax() == own for n in won) / max(1, len(rows)))
    return led


@dataclass(frozen=True)
class Writing:
    """Measures a system on such prompts."""

    ramole: Answering
    metrics: Mapping[str, str]
    """Of each task."""
    k: int
    tokens: int
    """Longest part."""
    named: bool = False
    """Whether the right adapters are named."""

    def measure(self, system: str, questions: Sequence[Question]) -> list[Found]:
        """What each part is worth, and who wrote it."""
        answers = self.ramole.generate([self.request(system, one) for one in questions])
        return [
            Found(tuple(answer.adapters), self._worth(system, one, answer))
            for one, answer in zip(questions, answers, strict=True)
        ]

    def request(self, system: str, question: Question) -> Request:
        """What the system is asked."""
        n, way = len(question.right), read_way(system)
        plain = Request(
            question.prompt,
            method="base",
            k=max(self.k, n),
            max_new_tokens=self.tokens * n,
            exclude=question.excluded,
        )
        if self.named and way.method != "base":
            plain = replace(plain, adapters=question.adapters, exclude=())
        return way.of(plain)

    def _worth(self, system: str, question: Question, answer: Generation) -> dict[str, float]:
        names, targets = question.adapters, question.target.split(ANSWERS)
        trace, text, tokens = answer.trace, answer.text, []
        if trace is not None and trace.adapters:
            tokens = trace.tokens[trace.prompt_length :]
            text = "".join(tokens)
        spans = cut(text, len(names))
        parts = [text[low:high] for low, high in spans]
        worth = {
            kind: score_parts(parts, targets, names, self.metrics, forgiving=kind == "lenient")
            for kind in ("score", "lenient")
        }
        worth["written"] = [100.0 * bool(part.strip()) for part in parts]
        if read_way(system).method != "base":
            worth["found"] = [100.0 * (name in answer.adapters) for name in names]
            worth["leads"] = (
                led_shares(trace, tokens, spans, names) if trace and tokens else [0.0] * len(names)
            )
        means = {kind: sum(values) / len(values) for kind, values in worth.items()}
        return means | {
            f"{kind} {n}": value
            for kind in ("lenient", "leads")
            for n, value in enumerate(worth.get(kind, ()), start=1)
        }


def score_parts(
    parts: Sequence[str],
    targets: Sequence[str],
    names: Sequence[str],
    metrics: Mapping[str, str],
    *,
    forgiving: bool = False,
) -> list[float]:
    """The first line of each part's answer by the metric of its task."""
    lines = [(part.strip().splitlines() or [""])[0].strip() for part in parts]
    return [
        score(metrics[name], [line], [target], forgiving=forgiving)[0]
        for name, line, target in zip(names, lines, targets, strict=True)
    ]


def make_composite_n(
    writing: Writing,
    asked: Mapping[str, Sequence[Row]],
    shown: Mapping[str, Sequence[Row]],
    *,
    n: int,
    sets: int,
    systems: Sequence[str],
    hidden: Sequence[str] = (),
    seed: int = 0,
    shots: int = SHOTS,
) -> Situation:
    """`sets` prompts of n tasks; `asked` and `shown` are rows by task, of questions and examples.

    Raises RamoleError where there are fewer than n tasks.
    """
    names = [name for name in asked if len(shown.get(name, ())) >= shots]
    if n < 1 or n > len(names):
        raise RamoleError(
            f"{n} questions of different tasks were asked for, and {len(names)} tasks have short "
            "rows; ask for fewer, or give more tasks."
        )
    used = {name: cycle(asked[name]) for name in names}
    examples = {name: cycle(shown[name]) for name in names}
    groups = {}
    for number, chosen in enumerate(draw_sets(names, n, sets, seed=seed)):
        rows = [next(used[name]) for name in chosen]
        before = [[next(examples[name]) for name in chosen] for _ in range(shots)]
        groups[f"{number:03} {', '.join(chosen)}"] = (
            Question(
                write_prompt(rows, before),
                chosen,
                target=ANSWERS.join(row.targets for row in rows),
                excluded=tuple(hidden),
            ),
        )
    what = f"{n} questions of {n} tasks in one prompt, answered in turn"
    return Situation(f"composite-{n}", what, "set", tuple(systems), groups, writing.measure)


def main(
    data: harness.Data = harness.DATA,
    n: Annotated[str, typer.Option(help="Questions in a prompt, comma separated.")] = "2,3",
    systems: harness.Systems = "meteora,moe,ramole_plus,mixture,similarity,base",
    rows: Annotated[int, typer.Option(help="Prompts of each n.")] = 40,
    skip: harness.Skip = 0,
    named: Annotated[bool, typer.Option(help="Name the right adapters to every system.")] = False,
    shots: Annotated[int, typer.Option(help="Examples before the questions.")] = SHOTS,
    k: Annotated[int, typer.Option(help="Adapters that are found, at least n.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer to one question.")] = 40,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("evaluation"),
    out: harness.Out = harness.RESULTS / "composite_n.json",
) -> None:
    """Ask several questions in one prompt; the same command goes on where it was stopped."""
    wanted = harness.words(systems)
    for name in wanted:
        read_way(name)
    with opened(data, seed=seed) as (ramole, crowd):
        every = read_rows(data, list(crowd.samples), split="dev", count=200, skip=skip)
        examples = read_rows(data, list(crowd.samples), split="train", count=200)
        facts = shared_facts(ramole, crowd) | {"named": named, "k": k, "tokens": tokens}
        cells = Cells(work, facts, lambda system: own_facts(ramole, system))
        metrics = {task.task: task.metric for task in every}
        writing = Writing(ramole, metrics, k, tokens, named)
        situations = [
            make_composite_n(
                writing,
                short(every),
                short(examples),
                n=int(count),
                sets=rows,
                systems=wanted,
                hidden=crowd.distractors,
                seed=seed,
                shots=shots,
            )  # fmt: skip
            for count in harness.words(n)
        ]
        run_situations(situations, cells, systems=wanted, told=say)
        tables = {one.name: make_situation_table(one, cells, systems=wanted) for one in situations}
        results = harness.Results(out, facts, skipped=skip, shots=shots, rows=rows, seed=seed)
        results.write(situations=tables)
    for name, table in tables.items():
        show_situation(name, table)
