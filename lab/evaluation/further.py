"""The situations beyond the rows of one task, by name; first those made of written prompts.

*Phrased*: people's own words for what an adapter does. *Follow-up*: the second message of a chat
names no task; *change*: it does, another one's, or the base's. *Uploads*: invented adapters whose
examples are talk, which the base's own card must not take away. *Open*: everyday prompts that no
adapter fits, and rows of tasks far from all of them.

Thresholds are fitted (`calibrate`) on every other everyday family, adapter with prompts in own
words, and chat; the tables tell these apart from the others, which show what a threshold is worth.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.evaluation.asking import Answering, Asker, judge_choice, judge_likeness
from lab.evaluation.composite import make_composite, real_losses
from lab.evaluation.evaluate import Rows, make_copied, make_switch, make_unseen, read_rows
from lab.evaluation.made_adapters import (
    BLIND,
    PERMUTED,
    UPLOADED,
    add_blind,
    add_permuted,
    add_uploads,
)
from lab.evaluation.questions import Measure, Question, Situation
from lab.evaluation.situations import Crowd
from lab.evaluation.systems import Ask
from ramole_core.training.prompt_sets import (
    Everyday,
    FollowUp,
    Phrased,
    Upload,
    read_everyday,
    read_follow_ups,
    read_phrased,
    read_uploads,
)

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

CHOOSING = ("selection", "ramole_plus")
"""All others find what `selection` finds."""
OPEN = (
    "base", "selection", "mixture", "uniform_router", "similarity", "random_router",
    "random_weights", "ramole", "ramole_plus",
)  # fmt: skip
OPEN_TOKENS = 128
FAR = {
    "paraphrase": ("paws_wiki", "medical_question_pairs"),
    "coreference": ("winogrande", "wsc"),
    "social media": ("emoji_tweet", "irony_tweet"),
    "commonsense": ("piqa", "copa"),
    "summarisation": ("dialogsum", "aeslc"),
}
"""Task families that no sample adapter is near to, with two tasks each."""
FAR_ROWS = 10
"""Of each far task of `open`."""
FITTED, HELD_OUT, FAR_PART = "fitted on", "not fitted on", "far tasks"
"""The parts of these situations."""
UNSEEN = 30
"""Tasks without an adapter."""


def fitted_half(names: Iterable[str]) -> tuple[str, ...]:
    """The names that a threshold may be fitted on: every other one."""
    return tuple(dict.fromkeys(names))[::2]


def make_phrased(
    ramole: Answering, prompts: Sequence[Phrased], *, hidden: Sequence[str], ask: Ask
) -> Situation:
    """Who is found for people's own words; `hidden` are adapters that must not be found."""
    groups = _grouped(
        (one.adapter, Question(one.text, (one.adapter,), excluded=tuple(hidden))) for one in prompts
    )
    what = "prompts in people's own words; is the adapter found that does what they ask?"
    measure, parts = _choice(ramole, ask), _parts(groups, fitted_half(groups))
    return Situation("phrased", what, "adapter", CHOOSING, groups, measure, parts=parts)


def make_uploads(
    ramole: Answering, uploads: Sequence[Upload], *, hidden: Sequence[str], owner: str, ask: Ask
) -> Situation:
    """Whether invented adapters of talk are found for prompts of their kind; they are `owner`'s."""
    groups = _grouped(
        (one.name, Question(text, (one.name,), excluded=tuple(hidden), owner=owner))
        for one in uploads
        for text in one.prompts
    )
    what = "uploads whose examples are chat, poems, a persona; are they found, or is the base?"
    return Situation("uploads", what, "adapter", CHOOSING, groups, _choice(ramole, ask))


def make_chats(
    ramole: Answering,
    chats: Sequence[FollowUp],
    *,
    fitted: Collection[FollowUp],
    hidden: Sequence[str],
    ask: Ask,
) -> tuple[Situation, Situation]:
    """Follow-ups that keep the task, and second messages that change it.

    `fitted`: those that a threshold was fitted on, which are units of their own.
    """

    def make(name: str, continues: bool, what: str) -> Situation:
        groups = _grouped(
            (
                f"{chat.adapter}, fitted on" if chat in fitted else chat.adapter,
                Question(
                    chat.then,
                    (chat.adapter, chat.expected),
                    history=((chat.first, chat.answer),),
                    excluded=tuple(hidden),
                ),
            )
            for chat in chats
            if chat.continues == continues
        )
        parts = _parts(groups, [unit for unit in groups if unit.endswith(", fitted on")])
        measure = _choice(ramole, ask)
        return Situation(name, what, "adapter", CHOOSING, groups, measure, parts=parts)

    kept = "the second message of a chat names no task; does it keep the adapter of the first?"
    other = "the second message of a chat asks for something else; is that found?"
    return make("follow-up", True, kept), make("change", False, other)


def make_open(
    ramole: Answering,
    prompts: Sequence[Everyday],
    far: Mapping[str, Sequence[Rows]],
    *,
    hidden: Sequence[str],
    ask: Ask,
) -> Situation:
    """Whether the base answers what nothing fits, and how near answers are to its own.

    `far`: rows of task families far from all adapters, by family.
    """
    texts = [(one.family, one.text) for one in prompts]
    rows = [
        (family, row.inputs) for family, tasks in far.items() for task in tasks for row in task.rows
    ]
    families = [family for family, _ in texts]
    parts = _parts(families, fitted_half(families)) | dict.fromkeys(far, FAR_PART)
    what = "everyday prompts and rows of far tasks, which nothing fits; is the answer the base's?"
    asker = Asker(ramole, replace(ask, tokens=OPEN_TOKENS), judge_likeness, compares=True)
    groups = _grouped(
        (unit, Question(text, (None,), excluded=tuple(hidden))) for unit, text in [*texts, *rows]
    )
    return Situation("open", what, "family", OPEN, groups, asker.measure(), parts=parts)


def _parts(units: Iterable[str], fitted: Collection[str]) -> dict[str, str]:
    return {unit: FITTED if unit in fitted else HELD_OUT for unit in units}


def _choice(ramole: Answering, ask: Ask) -> Measure:
    """Who answers is known after one token."""
    return Asker(ramole, replace(ask, tokens=1), judge_choice).measure()


def _grouped(pairs: Iterable[tuple[str, Question]]) -> dict[str, tuple[Question, ...]]:
    groups: dict[str, tuple[Question, ...]] = {}
    for unit, question in pairs:
        groups[unit] = (*groups.get(unit, ()), question)
    return groups


@dataclass(frozen=True)
class Material:
    """What situations are made from."""

    ramole: "Ramole"
    crowd: Crowd
    data: Path
    tasks: Sequence[Rows]
    """Rows of sample adapters' tasks, as the row situations ask them."""
    ask: Ask
    seed: int
    split: str
    rows: int
    skip: int = 0

    @property
    def hidden(self) -> tuple[str, ...]:
        """Adapters that only the crowded pool has."""
        return self.crowd.distractors

    def read(self, names: Sequence[str], count: int) -> list[Rows]:
        """Rows of other tasks, as many left out before them as of the sample adapters' tasks, where
        each of these tasks has enough."""
        files = [self.data / name / f"{self.split}.jsonl" for name in names]
        sizes = [len(f.read_text("utf-8").splitlines()) for f in files if f.is_file()]
        skip = max(0, min([self.skip, *(size - FAR_ROWS for size in sizes)]))
        return read_rows(self.data, names, split=self.split, count=count, skip=skip)


def _phrased(m: Material) -> Situation:
    known = [one for one in read_phrased() if one.adapter in m.crowd.samples]
    return make_phrased(m.ramole, known, hidden=m.hidden, ask=m.ask)


def _chats(m: Material) -> tuple[Situation, Situation]:
    known, every = {*m.crowd.samples, None}, read_follow_ups()
    chats = [one for one in every if {one.adapter, one.expected} <= known]
    return make_chats(m.ramole, chats, fitted=every[::2], hidden=m.hidden, ask=m.ask)


def _open(m: Material) -> Situation:
    far = {family: m.read(names, FAR_ROWS) for family, names in FAR.items()}
    return make_open(m.ramole, read_everyday(), far, hidden=m.hidden, ask=m.ask)


def _uploads(m: Material) -> Situation:
    uploads = read_uploads()
    names = add_uploads(m.ramole.pool, uploads, seed=m.seed)
    named = [replace(one, name=names[one.name]) for one in uploads]
    return make_uploads(m.ramole, named, hidden=m.hidden, owner=UPLOADED, ask=m.ask)


def _unseen(m: Material) -> Situation:
    found = sorted(path.parent.name for path in m.data.glob(f"*/{m.split}.jsonl"))
    others = [name for name in found if name not in m.crowd.samples]
    drawn = sorted(random.Random(f"{m.seed}/unseen").sample(others, min(UNSEEN, len(others))))
    tasks = [rows for name in drawn for rows in m.read([name], m.rows)]
    return make_unseen(m.ramole, tasks, hidden=m.hidden, ask=m.ask)


def _copied(
    m: Material, name: str, what: str, *, add: Callable[..., Mapping[str, str]], owner: str
) -> Situation:
    copies = add(m.ramole.pool, m.crowd.samples, seed=m.seed)
    hidden = (*m.crowd.samples, *m.hidden)
    tasks = [task for task in m.tasks if task.task in copies]  # one's own adapters have none
    return make_copied(
        m.ramole, tasks, copies, name=name, what=what, hidden=hidden, owner=owner, ask=m.ask
    )


NOTHING = "no adapter shows examples, and their names say nothing"
IMPOSTORS = "each adapter's examples are shown by two impostors too"
FURTHER: dict[str, Callable[[Material], Situation]] = {
    "phrased": _phrased,
    "follow-up": lambda m: _chats(m)[0],
    "change": lambda m: _chats(m)[1],
    "uploads": _uploads,
    "open": _open,
    "unseen": _unseen,
    "switch": lambda m: make_switch(m.ramole, m.tasks, hidden=m.hidden, ask=m.ask, seed=m.seed),
    "composite": lambda m: make_composite(
        m.ramole, real_losses(m.ramole), m.ramole.base.tokenizer, m.tasks, seed=m.seed
    ),
    "permuted": lambda m: _copied(m, "permuted", IMPOSTORS, add=add_permuted, owner=PERMUTED),
    "blind": lambda m: _copied(m, "blind", NOTHING, add=add_blind, owner=BLIND),
}
"""In the order they run."""
