"""*Composite-n*: n questions of n tasks in one prompt, answered in turn.

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

import numpy as np

from lab.evaluation.asking import Answering
from lab.evaluation.evaluate import Rows
from lab.evaluation.metrics import score
from lab.evaluation.questions import Found, Question, Situation
from lab.evaluation.systems import read_way
from ramole_core.contribution import shares_of
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request, Trace
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
        parts = [_first_line(text[low:high]) for low, high in spans]
        worth = {
            kind: [
                score(self.metrics[name], [part], [target], forgiving=kind == "lenient")[0]
                for name, part, target in zip(names, parts, targets, strict=True)
            ]
            for kind in ("score", "lenient")
        }
        worth["written"] = [100.0 * bool(part) for part in parts]
        if read_way(system).method != "base":
            led = (
                led_shares(trace, tokens, spans, names) if trace and tokens else [0.0] * len(names)
            )
            worth["found"] = [100.0 * (name in answer.adapters) for name in names]
            worth["leads"] = led
        means = {kind: sum(values) / len(values) for kind, values in worth.items()}
        each = {
            f"{kind} {n}": value
            for kind in ("lenient", "leads")
            for n, value in enumerate(worth.get(kind, ()), start=1)
        }
        return means | each


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].strip()


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
