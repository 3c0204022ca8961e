"""The situations made of written prompts: phrased, follow-up, change, uploads, open.

*Phrased*: people's own words for what an adapter does. *Follow-up*: the second message of a chat
names no task; *change*: it does, another one's, or the base's. *Uploads*: invented adapters whose
examples are talk, which the base's own card must not take away. *Open*: everyday prompts that no
adapter fits, and rows of tasks far from all of them.

Thresholds are fitted (`calibrate`) on every other everyday family, adapter with prompts in own
words, and chat; the tables tell these apart from the others, which show what a threshold is worth.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from lab.evaluation.asking import Answering, Asker, judge_choice, judge_likeness
from lab.evaluation.evaluate import Rows
from lab.evaluation.questions import Measure, Question, Situation
from lab.evaluation.systems import Ask
from ramole_core.training.prompt_sets import Everyday, FollowUp, Phrased, Upload

CHOOSING = ("selection", "ramole_plus")
"""All others find what `selection` finds."""
OPEN = (
    "base", "selection", "mixture", "uniform_router", "similarity", "random_router",
    "random_weights", "ramole", "ramole_plus",
)  # fmt: skip
OPEN_TOKENS = 128
FAR = {
    "sentiment": ("sst2", "poem_sentiment"),
    "coreference": ("winogrande", "wsc"),
    "social media": ("emoji_tweet", "irony_tweet"),
    "commonsense": ("piqa", "copa"),
    "summarisation": ("dialogsum", "aeslc"),
}
"""Task families that no sample adapter is near to, with two tasks each."""
FITTED, HELD_OUT, FAR_ROWS = "fitted on", "unseen", "far tasks"
"""The parts of these situations."""


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
    written = [(one.family, Question(one.text, (None,), excluded=tuple(hidden))) for one in prompts]
    rows = [
        (family, Question(row.inputs, (None,), excluded=tuple(hidden)))
        for family, tasks in far.items()
        for task in tasks
        for row in task.rows
    ]
    families = [name for name, _ in written]
    parts = _parts(families, fitted_half(families)) | dict.fromkeys(far, FAR_ROWS)
    what = "everyday prompts and rows of far tasks, which nothing fits; is the answer the base's?"
    asker = Asker(ramole, replace(ask, tokens=OPEN_TOKENS), judge_likeness, compares=True)
    groups = _grouped([*written, *rows])
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
