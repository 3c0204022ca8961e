"""A second message that names no task: which ways to decide keep the right adapter.

    python -m lab.evaluation.follow_up_table

Each way's threshold is fitted on a half of the chats, drawn anew for each split, and measured on
the others: messages that go on must keep the first turn's adapter, those that ask for another task
must find its adapter, and those that chat must go to the base. Intervals are over the adapters of
the first turns.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Bool, Float

from lab.evaluation.base_table import by_group, summary
from ramole_core.ramole import Ramole
from ramole_core.retrieval.base_expert import card_vectors
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions
from ramole_core.training.lines import fit_line
from ramole_core.training.prompt_sets import FollowUp, read_follow_ups

MODULE = "lab.evaluation.follow_up_table"
KINDS = ("goes on", "another task", "everyday")
Facts = Mapping[str, Float[np.ndarray, "n"]]


@dataclass(frozen=True)
class Way:
    """One way to decide: keep where the weighted sum of the facts is above a fitted threshold."""

    name: str
    weights: Mapping[str, float]
    """Empty: never keep."""


WAYS = (
    Way("found anew each turn", {}),
    Way("kept unless another adapter is ahead", {"ahead": -1.0}),
    Way("kept unless it names a task or is everyday", {"ahead": -0.5, "base": -0.5}),
    Way("kept where it goes on", {"go_on": 1.0}),
    Way(
        "as shipped: goes on, less everyday, less ahead",
        {"go_on": 1.0, "base": -0.5, "ahead": -0.5},
    ),
    Way("all three alike", {"go_on": 1.0, "base": -1.0, "ahead": -1.0}),
)


def kind_of(chat: FollowUp) -> str:
    """What the second message asks for."""
    if chat.continues:
        return KINDS[0]
    return KINDS[2] if chat.expected is None else KINDS[1]


def facts_of(ramole: Ramole, chats: Sequence[FollowUp]) -> tuple[Facts, list[str], list[str]]:
    """Similarities of each second message; the first turn's adapter; who answers it anew."""
    cards, pool = card_vectors(ramole.retriever), ramole.pool.cards()
    rows = ramole.retriever.embed([chat.then for chat in chats])
    leaders, anew = [], []
    facts: dict[str, list[float]] = {"go_on": [], "base": [], "ahead": []}
    for chat, row in zip(chats, rows, strict=True):
        first = ramole.retriever.similarities(chat.first, pool)
        then = ramole.retriever.similarities(chat.then, pool)
        leader = int(np.argmax(first))
        facts["go_on"].append(float(row @ cards["going_on"]))
        facts["base"].append(float(row @ cards["everyday"]))
        facts["ahead"].append(max(then) - then[leader])
        leaders.append(pool[leader].name)
        evidence = ramole.base_expert.judge(chat.then, ramole.retrieve(chat.then, k=1))
        anew.append("" if evidence.decision == "base" else str(evidence.nearest))
    return {name: np.array(values) for name, values in facts.items()}, leaders, anew


def measure_way(
    way: Way,
    facts: Facts,
    chats: Sequence[FollowUp],
    right: Mapping[bool, Bool[np.ndarray, "n"]],
    *,
    splits: int,
) -> dict[str, object]:
    """Percent right of each kind; `right[kept]` says which chats are right where kept, or anew."""
    kinds = np.array([kind_of(chat) for chat in chats])
    goes, random = kinds == KINDS[0], np.random.default_rng(0)
    worth = sum((w * facts[name] for name, w in way.weights.items()), np.zeros(len(chats)))
    good = np.full((splits, len(chats)), np.nan)
    for split in range(splits):
        used = np.zeros(len(chats), bool)
        for kind in KINDS:
            (places,) = np.where(kinds == kind)
            used[random.choice(places, size=len(places) // 2, replace=False)] = True
        kept = np.zeros(len(chats), bool)
        if way.weights:
            x = worth[:, None]
            kept = fit_line(x[goes & used], x[~goes & used])(x) >= 0
        good[split] = np.where(used, np.nan, np.where(kept, right[True], right[False]))
    return {
        "way": way.name,
        **{
            kind: summary(
                by_group(good[:, kinds == kind], [c.adapter for c in chats if kind_of(c) == kind])
            )
            for kind in KINDS
        },
    }


def main(
    splits: Annotated[int, typer.Option(help="Halves that are drawn.")] = 200,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "follow_ups.json"
    ),
) -> None:
    """Compare the ways, and write the table."""
    chats = read_follow_ups()
    with Ramole() as ramole:
        facts, leaders, anew = facts_of(ramole, chats)
        encoder = ramole.retriever.encoder_checksum
    expected = [chat.expected or "" for chat in chats]
    right = {
        True: np.array([a == b for a, b in zip(leaders, expected, strict=True)]),
        False: np.array([a == b for a, b in zip(anew, expected, strict=True)]),
    }
    rows = [measure_way(way, facts, chats, right, splits=splits) for way in WAYS]
    report = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "versions": versions(),
        "encoder": encoder,
        "splits": splits,
        "rows": rows,
    }
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for row in rows:
        print(line_of(row))


def line_of(row: Mapping[str, object]) -> str:
    """One line of the table."""
    cells = []
    for kind in KINDS:
        cell = row[kind]
        assert isinstance(cell, dict)
        cells.append(f"{kind} {cell['mean']:5.1f} [{cell['low']:.1f}, {cell['high']:.1f}]")
    return f"{row['way']:48} {'  '.join(cells)}"


if __name__ == "__main__":
    typer.run(main)
