"""Questions as requests, and what the answers are worth: the way of most situations.

`ramole_plus` and `ramole` are asked as they serve: a chat is a request with its earlier turns. So
is a method that is asked to abstain, and one that says itself which adapters answer: for these
nothing can be named. The others are rivals that are found anew for each turn of a chat, whatever
the retriever makes of a follow-up: their adapters are looked up by each turn's own text, and named.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from lab.evaluation.metrics import rouge_l, score
from lab.evaluation.questions import Found, Measure, Question
from lab.evaluation.systems import (
    ALONE,
    OURS,
    PERFECT,
    RANDOM,
    Ask,
    Way,
    finds_its_own,
    fits_weights,
    read_way,
    request_of,
)
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request
from ramole_core.retrieval import Hit
from ramole_core.training.rows import Row

EXAMPLES = 5
"""Pairs that a method which fits weights gets; LoraHub's number."""


@runtime_checkable
class Answering(Protocol):
    """What is asked: `Ramole`, or a fake of it in fast tests."""

    def retrieve(
        self, text: str, k: int = 3, exclude: Iterable[str] = (), owner: str | None = None
    ) -> list[Hit]: ...
    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...


Judge = Callable[[Question, Generation, Generation | None], dict[str, float]]
"""What an answer is worth; the last is the base's own where the situation compares with it."""


@dataclass(frozen=True)
class Asker:
    """Asks a system some questions at once."""

    ramole: Answering
    ask: Ask
    judge: Judge
    compares: bool = False
    """Whether the base's own answer is made beside each."""
    examples: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """By task, for a method that fits weights; it is asked only where there are some."""

    def measure(self) -> Measure:
        """As a situation has it; the base's own answers are made once."""
        known: dict[Question, Generation] = {}

        def measure(system: str, questions: Sequence[Question]) -> list[Found]:
            requests = [self.request(system, one) for one in questions]
            answers = self.ramole.generate(requests)
            if self.compares:
                left = [one for one in questions if one not in known]
                bare = [self.request("base", one) for one in left]
                own = answers if system == "base" else self.ramole.generate(bare) if left else []
                known.update(zip(questions if system == "base" else left, own, strict=True))
            return [
                Found(tuple(answer.adapters), self.judge(one, answer, known.get(one)))
                for one, answer in zip(questions, answers, strict=True)
            ]

        return measure

    def request(self, system: str, question: Question) -> Request:
        """What the system is asked."""
        told = self._request(system, question)
        return replace(told, trace=True) if self.compares else told

    def _request(self, system: str, question: Question) -> Request:
        near = self._found(question, question.prompt, self.ask.k) if system == RANDOM else ()
        asked = request_of(
            system,
            question.prompt,
            own=question.right[-1],
            excluded=question.excluded,
            ask=self.ask,
            owner=question.owner,
            found=near,
        )
        if fits_weights(system):
            asked = self._with_examples(system, asked, str(question.right[-1]))
        if not question.history:
            return asked
        if system in ALONE:
            rights = question.right[:-1] if system == PERFECT else (None,) * len(question.history)
            turns = [
                (user, answer, () if right is None else (right,))
                for (user, answer), right in zip(question.history, rights, strict=True)
            ]
            return replace(asked, history=tuple(turns))
        way = read_way(system) if system != RANDOM else Way("mixture")
        if way.method in OURS or way.abstain or (system != RANDOM and finds_its_own(system)):
            return replace(asked, history=question.history)
        count = 1 if way.method == "selection" else self.ask.k
        turns = [
            (user, answer, self._found(question, user, count)) for user, answer in question.history
        ]
        if system != RANDOM:
            names = self._found(question, question.prompt, count)
            asked = replace(asked, adapters=names, exclude=())
        return replace(asked, history=tuple(turns))

    def _with_examples(self, system: str, asked: Request, task: str) -> Request:
        """With the examples, and the k adapters that are nearest to them on the whole, each of
        which brings its own k."""
        examples = self.examples.get(task, ())
        if not examples:
            raise RamoleError(
                f"System {system} finds its weights on the {EXAMPLES} rows before those that are "
                f"asked, and there are none: skip at least {EXAMPLES}."
            )
        near: Counter[str] = Counter()
        for row in examples:
            hits = self.ramole.retrieve(row.inputs, self.ask.k, exclude=asked.exclude)
            near.update({hit.name: hit.score for hit in hits})
        names = tuple(name for name, _ in near.most_common(self.ask.k))
        pairs = [(row.inputs, row.targets) for row in examples]
        return replace(asked, examples=pairs, adapters=names, exclude=())

    def _found(self, question: Question, text: str, count: int) -> tuple[str, ...]:
        """The names that are found for a text alone."""
        hits = self.ramole.retrieve(text, count, exclude=question.excluded, owner=question.owner)
        return tuple(hit.name for hit in hits)


def judge_choice(
    question: Question, answer: Generation, base: Generation | None = None
) -> dict[str, float]:
    """Percent: whether the right one answers (`right`), and whether the base was left to (`left`).

    Right is the question's adapter in the first place, or the base where nothing fits.
    """
    evidence = getattr(answer, "evidence", None)
    left, wanted = getattr(evidence, "decision", None) == "base", question.right[-1]
    alone = left or not answer.adapters
    right = alone if wanted is None else answer.adapters[:1] == [wanted] and not left
    return {"right": 100.0 * right, "left": 100.0 * left}


def judge_score(
    question: Question, answer: Generation, base: Generation | None = None
) -> dict[str, float]:
    """The answer's score by the task's metric, strict and lenient; and the choice."""
    text = answer.text.strip()
    strict, mild = (
        score(question.metric, [text], [question.target], forgiving=forgiving)[0]
        for forgiving in (False, True)
    )
    return {"score": strict, "lenient": mild, **judge_choice(question, answer)}


def judge_likeness(
    question: Question, answer: Generation, base: Generation | None
) -> dict[str, float]:
    """How near the answer is to the base's own: ROUGE-L, and percent token for token; its words;
    and the choice."""
    assert base is not None
    return {
        "likeness": 100.0 if answer.text == base.text else rouge_l(answer.text, base.text),
        "same": 100.0 * (_ids(answer) == _ids(base)),
        "words": float(len(answer.text.split())),
        **judge_choice(question, answer),
    }


def _ids(answer: Generation) -> object:
    """The answer's tokens; its text where no trace was kept."""
    trace = answer.trace
    return answer.text if trace is None else tuple(trace.token_ids[trace.prompt_length :])
