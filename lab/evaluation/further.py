"""The situations beyond the rows of one task, by name, and how each is made from pool and data."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.evaluation.composite import make_composite, real_losses
from lab.evaluation.copies import BLIND, PERMUTED, UPLOADED, add_blind, add_permuted, add_uploads
from lab.evaluation.evaluate import Rows, read_rows
from lab.evaluation.questions import Situation
from lab.evaluation.situations import Crowd
from lab.evaluation.systems import Ask
from lab.evaluation.task_rows import make_copied, make_switch, make_unseen
from lab.evaluation.written import FAR, make_chats, make_open, make_phrased, make_uploads
from ramole_core.training.prompt_sets import (
    read_everyday,
    read_follow_ups,
    read_phrased,
    read_uploads,
)

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

UNSEEN = 30
"""Tasks without an adapter."""
FAR_ROWS = 10
"""Of each far task of `open`."""


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


def _phrased(m: Material) -> Situation:
    known = [one for one in read_phrased() if one.adapter in m.crowd.samples]
    return make_phrased(m.ramole, known, hidden=m.crowd.distractors, ask=m.ask)


def _follow_up(m: Material) -> Situation:
    return _chats(m)[0]


def _change(m: Material) -> Situation:
    return _chats(m)[1]


def _chats(m: Material) -> tuple[Situation, Situation]:
    known, every = {*m.crowd.samples, None}, read_follow_ups()
    chats = [one for one in every if {one.adapter, one.expected} <= known]
    hidden = m.crowd.distractors
    return make_chats(m.ramole, chats, fitted=every[::2], hidden=hidden, ask=m.ask)


def _open(m: Material) -> Situation:
    far = {
        family: read_rows(m.data, names, split=m.split, count=FAR_ROWS, skip=_skip(m, names))
        for family, names in FAR.items()
    }
    return make_open(m.ramole, read_everyday(), far, hidden=m.crowd.distractors, ask=m.ask)


def _skip(m: Material, names: Sequence[str]) -> int:
    """Rows left out before those that are asked: as many as of the sample adapters' tasks, where
    each of these tasks has enough."""
    files = [m.data / name / f"{m.split}.jsonl" for name in names]
    sizes = [len(f.read_text("utf-8").splitlines()) for f in files if f.is_file()]
    return max(0, min([m.skip, *(size - FAR_ROWS for size in sizes)]))


def _uploads(m: Material) -> Situation:
    uploads = read_uploads()
    names = add_uploads(m.ramole.pool, uploads, seed=m.seed)
    named = [replace(one, name=names[one.name]) for one in uploads]
    hidden = m.crowd.distractors
    return make_uploads(m.ramole, named, hidden=hidden, owner=UPLOADED, ask=m.ask)


def _unseen(m: Material) -> Situation:
    found = sorted(path.parent.name for path in m.data.glob(f"*/{m.split}.jsonl"))
    strangers = [name for name in found if name not in m.crowd.samples]
    drawn = sorted(random.Random(f"{m.seed}/unseen").sample(strangers, min(UNSEEN, len(strangers))))
    tasks = []
    for name in drawn:
        skip = min(m.skip, max(0, _skip(m, [name])))
        tasks += read_rows(m.data, [name], split=m.split, count=m.rows, skip=skip)
    return make_unseen(m.ramole, tasks, hidden=m.crowd.distractors, ask=m.ask)


def _switch(m: Material) -> Situation:
    return make_switch(m.ramole, m.tasks, hidden=m.crowd.distractors, ask=m.ask, seed=m.seed)


def _composite(m: Material) -> Situation:
    tokenizer = m.ramole.base.tokenizer
    return make_composite(m.ramole, real_losses(m.ramole), tokenizer, m.tasks, seed=m.seed)


def _blind(m: Material) -> Situation:
    what = "no adapter shows examples, and their names say nothing"
    return _copied(m, "blind", what, add=add_blind, owner=BLIND)


def _permuted(m: Material) -> Situation:
    what = "each adapter's examples are shown by two impostors too"
    return _copied(m, "permuted", what, add=add_permuted, owner=PERMUTED)


def _copied(
    m: Material, name: str, what: str, *, add: Callable[..., Mapping[str, str]], owner: str
) -> Situation:
    copies = add(m.ramole.pool, m.crowd.samples, seed=m.seed)
    hidden = (*m.crowd.samples, *m.crowd.distractors)
    return make_copied(
        m.ramole, m.tasks, copies, name=name, what=what, hidden=hidden, owner=owner, ask=m.ask
    )


FURTHER: dict[str, Callable[[Material], Situation]] = {
    "phrased": _phrased,
    "follow-up": _follow_up,
    "change": _change,
    "uploads": _uploads,
    "open": _open,
    "unseen": _unseen,
    "switch": _switch,
    "composite": _composite,
    "permuted": _permuted,
    "blind": _blind,
}
"""In the order they run."""
