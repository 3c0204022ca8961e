"""*Composite*: two tasks in one prompt, both right adapters named, the right answers forced.

The prompt is both tasks' inputs, the answer both targets, with an empty line between. Losses are
nats a token, the mean of the two parts' means; the line between belongs to neither. The oracle has
the first adapter alone for the first part's tokens, and the second alone for the second's. A gate's
weights are read from the trace of the same tokens, given as a prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from lab.evaluation.asking import Answering
from lab.evaluation.evaluate import Rows, draw_pairs
from lab.evaluation.questions import Found, Question, Situation
from lab.evaluation.systems import ORACLE, PERFECT, RANDOM, WRITTEN, draw_weights, read_way
from ramole_core.request import Request, Trace
from ramole_core.training.rows import Encoded, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ramole_core.ramole import Ramole

PAIRS = 60
ROWS = 2
"""Of each pair."""
BETWEEN = "\n\n"
SYSTEMS = (*(name for name in WRITTEN if name != PERFECT), ORACLE)
UNGATED = ("base", "selection", "mixture", "uniform_router", ORACLE, RANDOM)
"""They have one weight for all tokens, which says nothing of who is ahead where."""


@dataclass(frozen=True)
class Composed:
    """A prompt of two tasks as token ids."""

    encoded: Encoded
    parts: tuple[int | None, ...]
    """Of each answer token: 0 or 1, which task's it is; None between them."""


Losses = Callable[[Sequence[tuple[Composed, Request]]], list[tuple[float, ...]]]
"""Losses of each answer token of each row under its request."""


def compose(question: Question, tokenizer: "PreTrainedTokenizerBase") -> Composed:
    """The question's ids; its target is both parts' with BETWEEN between."""
    first, _, second = question.target.partition(BETWEEN)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in (first, BETWEEN, second)]
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    ids[2] = [*ids[2], end]
    parts = [part for part, run in zip((0, None, 1), ids, strict=True) for _ in run]
    answer = tuple(token for run in ids for token in run)
    return Composed(Encoded(tuple(render_prompt(tokenizer, question.prompt)), answer), tuple(parts))


def make_composite(
    ramole: Answering,
    losses: Losses,
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[Rows],
    *,
    seed: int,
    pairs: int = PAIRS,
    rows: int = ROWS,
) -> Situation:
    """Pairs of tasks, each of `rows` prompts; targets with an empty line of their own stay out."""
    kept = {task.task: [row for row in task.rows if BETWEEN not in row.targets] for task in tasks}
    names = [name for name, found in kept.items() if found]
    turns = {name: cycle(kept[name]) for name in names}
    groups = {}
    for pair in draw_pairs(names, pairs, seed=seed + 1):
        drawn = [list(islice(turns[name], rows)) for name in pair]
        groups[f"{pair[0]} and {pair[1]}"] = tuple(
            Question(
                BETWEEN.join((one.inputs, other.inputs)),
                pair,
                target=BETWEEN.join((one.targets, other.targets)),
            )
            for one, other in zip(*drawn, strict=True)
        )
    what = "two tasks in one prompt, both adapters named, right answers forced: nats a token"
    asker = _Forcing(ramole, losses, tokenizer)
    return Situation("composite", what, "pair", SYSTEMS, groups, asker.measure)


@dataclass(frozen=True)
class _Forcing:
    """Measures a system on composed prompts."""

    ramole: Answering
    losses: Losses
    tokenizer: "PreTrainedTokenizerBase"

    def measure(self, system: str, questions: Sequence[Question]) -> list[Found]:
        """Losses by part, and who is ahead where the system has weights."""
        composed = [compose(one, self.tokenizer) for one in questions]
        rows = list(zip(composed, questions, strict=True))
        if system == ORACLE:
            alone = [
                self.losses([(row, _request("selection", one, only=part)) for row, one in rows])
                for part in (0, 1)
            ]
            found = [
                tuple(pair[part or 0] for part, *pair in zip(row.parts, *both, strict=True))
                for row, *both in zip(composed, *alone, strict=True)
            ]
        else:
            found = self.losses([(row, _request(system, one)) for row, one in rows])
        measures = [_losses(row, mine) for row, mine in zip(composed, found, strict=True)]
        if system not in UNGATED:
            requests = [_request(system, one, given=row.encoded.answer[:-1]) for row, one in rows]
            answers = self.ramole.generate(requests)
            for measured, (row, one), answer in zip(measures, rows, answers, strict=True):
                measured |= measure_ahead(answer.trace, row, one.adapters) if answer.trace else {}
        return [Found(one.adapters, said) for one, said in zip(questions, measures, strict=True)]


def measure_ahead(trace: Trace, row: Composed, names: Sequence[str]) -> dict[str, float]:
    """Percent of the parts' tokens where the right adapter is ahead of the other one: by weight,
    and by contribution where the trace has it."""
    columns = [trace.adapters.index(name) for name in names]
    shares = {"ahead": trace.weights, "leads": getattr(trace, "contribution", None)}
    return {
        name: _share_ahead(np.asarray(weights, np.float32)[..., columns], row, trace.prompt_length)
        for name, weights in shares.items()
        if weights is not None
    }


def _share_ahead(
    weights: Float[np.ndarray, "T layer module two"], row: Composed, start: int
) -> float:
    """Percent of the tokens of a part where its adapter's mean weight is the larger."""
    mean = weights.reshape(len(weights), -1, 2).mean(1)
    won = [
        mean[start - 1 + n, part] > mean[start - 1 + n, 1 - part]
        for n, part in enumerate(row.parts)
        if part is not None
    ]
    return 100.0 * sum(map(bool, won)) / len(won)


def _losses(row: Composed, losses: Sequence[float]) -> dict[str, float]:
    first, second = (
        np.mean([loss for loss, place in zip(losses, row.parts, strict=True) if place == part])
        for part in (0, 1)
    )
    return {
        "loss": float(first + second) / 2,
        "first loss": float(first),
        "second loss": float(second),
    }


def _request(
    system: str, question: Question, *, given: Sequence[int] = (), only: int | None = None
) -> Request:
    """Both adapters named, or the `only` one; `given` answer tokens and one more, traced."""
    plain = Request(question.prompt, method="base")
    if given:
        plain = replace(plain, prefix_ids=tuple(given), max_new_tokens=len(given) + 1)
    if system == "base":
        return plain
    names = question.adapters if only is None else (question.adapters[only],)
    if system == RANDOM:
        weights = draw_weights(question.prompt, len(names))
        return replace(plain, method="mixture", adapters=names, weights=weights)
    return replace(read_way(system), abstain=None).of(replace(plain, adapters=names))


def real_losses(ramole: "Ramole") -> Losses:
    """Losses by the engine's own layers."""
    from lab.evaluation.forced import force_tokens

    def losses(asked: Sequence[tuple[Composed, Request]]) -> list[tuple[float, ...]]:
        chosen = ramole.candidates([request for _, request in asked])
        pairs = [(request, own) for (_, request), own in zip(asked, chosen, strict=True)]
        found = force_tokens(ramole.engine, ramole.base, [row.encoded for row, _ in asked], pairs)
        return [tuple(loss for loss, _ in tokens) for tokens in found]

    return losses
