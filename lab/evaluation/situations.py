"""The situations that systems are compared in: what retrieval may find for a row.

*IID*: any sample adapter. *OOD*: any but the row's own (arXiv 2406.16989, section 4.1). *Crowded*:
any, and a hundred distractors beside them. One pool serves all three: whatever a situation does not
have is excluded by name. One's own data is asked in those that it has material for.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.evaluation.made_adapters import add_spoilt, add_strangers, read_examples
from ramole_core.errors import RamoleError
from ramole_core.pool import Limits, Pool
from ramole_core.settings import load_settings
from ramole_core.training.prompt_sets import read_phrased
from ramole_core.training.rows import read_task

SITUATIONS = {
    "iid": "any sample adapter may be found",
    "ood": "the row's own adapter is masked",
    "crowded": "100 distractors are in the pool: spoilt copies and random weights",
}
DISTRACTORS = 100
COPIES = 2
"""Spoilt copies of each sample adapter; the other distractors have random weights."""
WRITTEN = {"phrased", "follow-up", "change", "uploads"}
"""Situations of prompts that the project wrote itself: they need no rows."""
SOURCES = "`python -m lab sources` says where the rows of the sample pool's tasks come from"


@dataclass(frozen=True)
class Crowd:
    """The names in a pool: sample adapters, and distractors."""

    samples: tuple[str, ...]
    distractors: tuple[str, ...]

    def excluded(self, situation: str, own: str) -> tuple[str, ...]:
        """The names that retrieval must not find for a row of the adapter `own`."""
        if situation == "crowded":
            return ()
        return self.distractors if situation == "iid" else (*self.distractors, own)


def make_crowd(pool: Pool, data: Path, *, seed: int, count: int = DISTRACTORS) -> Crowd:
    """Add `count` distractors to the sample pool.

    COPIES spoilt copies of each sample adapter show training rows of its task, where the data has
    some; the random ones show those of other tasks of the data.
    """
    samples = tuple(card.name for card in pool.cards())
    shown = {}
    for name in [name for name in samples if has_rows(data, name)][: count // COPIES]:
        train = read_task(data / name).train
        drawn = random.Random(f"{seed}/{name}").sample(train, min(len(train), 20 * COPIES))
        shown[name] = [row.inputs for row in drawn]
    names = add_spoilt(pool, shown.items(), each=COPIES, seed=seed)
    others = sum(path.parent.name not in samples for path in data.glob("*/train.jsonl"))
    drawn = read_examples(data, min(count - len(names), others), but=samples, seed=seed)
    return Crowd(samples, (*names, *add_strangers(pool, drawn, seed=seed + 5000)))


def has_rows(data: Path, name: str) -> bool:
    """Whether the data has training rows of a task."""
    return (data / name / "train.jsonl").is_file()


def tasks_of(data: Path, samples: Sequence[str], *, situations: Sequence[str]) -> list[str]:
    """The pool's tasks that the data has rows of; raises RamoleError where it has none and one of
    the `situations` needs some."""
    found = [name for name in samples if has_rows(data, name)]
    if not found and not (situations and set(situations) <= WRITTEN):
        raise RamoleError(
            f"{data} has rows of none of the pool's adapters, such as {samples[0]}/dev.jsonl; name "
            f"tasks of your own with --tasks, or get those: {SOURCES}."
        )
    return found


def situations_of(
    every: Sequence[str],
    data: Path,
    crowd: Crowd,
    tasks: Sequence[str],
    *,
    adapters: Collection[str],
    told: Callable[[str], None],
) -> Sequence[str]:
    """Those of `every` situation that these tasks can be asked in, where the pool has these
    `adapters`; tells which are left out."""
    written = {one.adapter for one in read_phrased()}
    if written <= set(crowd.samples) and all(has_rows(data, name) for name in crowd.samples):
        return every
    hidden = len(adapters) > 1 and set(tasks) <= set(adapters)  # each has one, and others are left
    there = {"iid": bool(adapters), "ood": hidden, "crowded": bool(crowd.distractors)}
    possible = [name for name in SITUATIONS if there[name]]
    left = [name for name in every if name not in possible]
    told(f"Left out, for they need the sample pool's rows or more adapters: {', '.join(left)}.")
    return possible


def add_own(pool: Pool, tasks: Sequence[str]) -> None:
    """Add the adapters of the user's own pool that are named after these tasks, where the sample
    pool has none."""
    settings = load_settings()
    known = {card.name for card in pool.cards()}
    wanted = [name for name in tasks if name not in known]
    if not wanted or not settings.data_dir.is_dir():
        return
    mine = Pool(
        adapters_dir=settings.adapters_dir,
        data_dir=settings.data_dir,
        shapes=dict,
        limits=Limits(),
        read_only=True,
    )
    try:
        for card in mine.cards():
            if card.name in wanted:
                pool.add(card.folder, name=card.name, examples=list(card.examples) or None)
    finally:
        mine.close()
