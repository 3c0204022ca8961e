"""The situations that systems are compared in: what retrieval may find for a row.

*IID*: any sample adapter. *OOD*: any but the row's own (arXiv 2406.16989, section 4.1). *Crowded*:
any, and a hundred distractors beside them. One pool serves all three: whatever a situation does not
have is excluded by name.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from lab.evaluation.distractors import crowd, read_examples, spoil
from ramole_core.pool import Pool
from ramole_core.training.rows import read_task

SITUATIONS = {
    "iid": "any sample adapter may be found",
    "ood": "the row's own adapter is masked",
    "crowded": "100 distractors are in the pool: spoilt copies and random weights",
}
DISTRACTORS = 100
COPIES = 2
"""Spoilt copies of each sample adapter; the other distractors have random weights."""


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
    copied = [name for name in samples if has_rows(data, name)][: count // COPIES]
    names = spoil(
        pool, [(name, _shown(data, name, seed=seed)) for name in copied], each=COPIES, seed=seed
    )
    left = count - len(names)
    others = sum(path.parent.name not in samples for path in data.glob("*/train.jsonl"))
    strangers = crowd(
        pool, read_examples(data, min(left, others), but=samples, seed=seed), seed=seed + 5000
    )
    return Crowd(samples, (*names, *strangers))


def _shown(data: Path, name: str, *, seed: int) -> list[str]:
    """Training inputs for the copies of one adapter, none twice."""
    train = read_task(data / name).train
    count = min(len(train), 20 * COPIES)
    return [row.inputs for row in random.Random(f"{seed}/{name}").sample(train, count)]


def has_rows(data: Path, name: str) -> bool:
    """Whether the data has training rows of a task."""
    return (data / name / "train.jsonl").is_file()
