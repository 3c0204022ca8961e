"""An evaluation of one's own data: which tasks, situations and adapters it has material for."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from lab.evaluation.situations import Crowd, has_rows
from ramole_core.errors import RamoleError
from ramole_core.pool import Limits, Pool
from ramole_core.settings import load_settings
from ramole_core.training.prompt_sets import read_phrased

ROWS = ("iid", "ood", "crowded")
"""Situations of a task's rows; the others are of the sample pool and all its tasks."""
WRITTEN = {"phrased", "follow-up", "change", "uploads"}
"""Situations of prompts that the project wrote itself: they need no rows."""
SOURCES = "`python -m lab sources` says where the rows of the sample pool's tasks come from"


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
    possible = [name for name in ROWS if there[name]]
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
