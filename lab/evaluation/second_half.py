"""Who is found for prompts by somebody who had seen neither the rule nor what it was fitted on.

    python -m lab second_half

`prompts/second_half.json`: people's own words, everyday prompts, invented uploads, two tasks in
one prompt, and long prompts of one. Of prompts whose adapter the pool has not, none is asked.
Intervals are over adapters, families, uploads or prompts. Nothing was fitted on them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab import harness
from lab.evaluation.intervals import bootstrap, bootstrap_groups
from lab.evaluation.made_adapters import UPLOADED, add_uploads
from ramole_core.request import Request
from ramole_core.training.prompt_sets import Upload

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

PROMPTS = Path(__file__).parent / "prompts" / "second_half.json"
METHODS = ("selection", "ramole_plus")
"""All others find what `selection` finds."""
K = 3


def leaders(ramole: "Ramole", text: str, method: str, owner: str | None = None) -> list[str]:
    """The adapters of the whole prompt, best first; none where the base answers."""
    asked = Request(text, method=method, k=K, split=False, owner=owner)
    return list(ramole.select(asked).adapters)


def found(
    ramole: "Ramole", prompts: Mapping[str, Sequence[str]], owner: str | None = None
) -> dict[str, object]:
    """Percent of prompts, by method, whose adapter leads, is among K, and that the base answers."""
    groups = [name for name, texts in prompts.items() for _ in texts]
    table: dict[str, object] = {"prompts": len(groups)}
    for method in METHODS:
        pairs = [
            (name, leaders(ramole, text, method, owner))
            for name, texts in prompts.items()
            for text in texts
        ]
        counts = {
            "leads": [100.0 * (names[:1] == [name]) for name, names in pairs],
            "among": [100.0 * (name in names) for name, names in pairs],
            "base": [100.0 * (not names) for _, names in pairs],
        }
        table[method] = {
            what: bootstrap_groups(values, groups).rounded(1) for what, values in counts.items()
        } | {"missed": sorted({name for name, names in pairs if name not in names})}
    return table


def cut(ramole: "Ramole", asked: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Percent of prompts of two tasks that are cut in two, and whose parts the right adapters
    lead."""
    selections = [ramole.select(Request(str(one["prompt"]))) for one in asked]
    every = [(one, *one.later) for one in selections]
    leads = [[part.adapters[:1] for part in parts] for parts in every]
    right = [
        names == [(task,) for task in one["tasks"]]  # pyright: ignore
        for names, one in zip(leads, asked, strict=True)
    ]
    return {
        "prompts": len(asked),
        "in_two": bootstrap([100.0 * (len(parts) == 2) for parts in every]).rounded(1),
        "right": bootstrap([100.0 * one for one in right]).rounded(1),
    }


def main(
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "second_half.json",
) -> None:
    """Ask for their adapters, and write the shares."""
    said = json.loads(PROMPTS.read_text("utf-8"))
    with harness.served() as ramole:
        facts = harness.facts_of(ramole)
        pool = {card.name for card in ramole.pool.cards()}
        phrased = {
            name: [one["prompt"] for one in prompts]
            for name, prompts in said["phrased"].items()
            if name in pool
        }
        two = [one for one in said["two_tasks"] if set(one["tasks"]) <= pool]
        alone = [one["prompt"] for one in said["one_task"] if one["task"] in pool]
        parts = [100.0 * (len(ramole.parts(Request(text))) > 1) for text in alone]
        harness.Results(out, facts, seed=seed).write(
            phrased=found(ramole, phrased),
            everyday=found(ramole, said["everyday"]),
            two_tasks=cut(ramole, two),
            one_task={"prompts": len(alone), "cut": bootstrap(parts).rounded(1)},
            uploads=uploads_found(ramole, said["uploads"], seed=seed),
        )


def uploads_found(
    ramole: "Ramole", invented: Mapping[str, Mapping[str, Sequence[str]]], *, seed: int
) -> dict[str, object]:
    """`found` of prompts for invented uploads, which are added to the pool."""
    uploads = [
        Upload(name, tuple(one["examples"]), tuple(one["asked"])) for name, one in invented.items()
    ]
    names = add_uploads(ramole.pool, uploads, seed=seed)
    prompts = {names[one.name]: one.prompts for one in uploads}
    return found(ramole, prompts, owner=UPLOADED)
