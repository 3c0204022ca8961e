"""What each piece of `ramole_plus` is worth, on dev rows, beside similarity and mixture.

    python -m lab.evaluation.evidence_table --data DATA

A variant takes its k adapters from the nearest 32 by its own evidence and mixes them by its own
gate; the rivals get the same evidence for their choice too, so that what the choice gives and what
the gate gives can be told apart. Rows are measured as `forced.py` says; differences to plain
similarity are paired by row, with 95 % bootstrap intervals over tasks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from lab.evaluation.command import opened
from lab.evaluation.evaluate import read_rows
from lab.evaluation.forced import Forced, measure_forced
from lab.evaluation.intervals import bootstrap, bootstrap_groups
from lab.evaluation.situations import SITUATIONS
from ramole_core.composition import Candidate, find_method
from ramole_core.composition.ramole_plus import EXAMINED
from ramole_core.errors import RamoleError
from ramole_core.methods import Value, complete_options
from ramole_core.request import Request
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions

MODULE = "lab.evaluation.evidence_table"
PLUS = "ramole_plus"
RIVAL = "similarity"
"""The first variant, which all others are compared with."""


@dataclass(frozen=True)
class Variant:
    """One way to choose and to mix."""

    name: str
    method: str
    k: int = 3
    options: Mapping[str, Value] = field(default_factory=dict)
    """Of `ramole_plus`: of the choice, and of the gate where the method is that one."""


NEAREST = {"surprise": 0.0}
VARIANTS = (
    Variant("similarity", "similarity", 3, NEAREST),
    Variant("selection", "selection", 1, NEAREST),
    Variant("mixture", "mixture", 3, NEAREST),
    Variant("uniform router", "uniform_router", 3, NEAREST),
    Variant("random router", "random_router", 3, NEAREST),
    Variant("ramole", "ramole", 3, NEAREST),
    Variant("ramole_plus", "ramole_plus"),
    Variant("selection, chosen by evidence", "selection", 1),
    Variant("mixture, chosen by evidence", "mixture"),
    Variant("similarity, chosen by evidence", "similarity"),
    Variant("similarity, chosen so, no more where they tie", "similarity", 3, {"tied": 1.0}),
    Variant("ramole, chosen by evidence", "ramole"),
    Variant("without surprise", "ramole_plus", 3, {"surprise": 0.0}),
    Variant("without similarity", "ramole_plus", 3, {"bandwidth": 1e6}),
    Variant("the same weights for every token", "ramole_plus", 3, {"own": 0.0}),
    Variant("half the surprise", "ramole_plus", 3, {"surprise": 1.0}),
    Variant("twice the surprise", "ramole_plus", 3, {"surprise": 4.0}),
    Variant("no more where similarities tie", "ramole_plus", 3, {"tied": 1.0}),
    Variant("twice the bandwidth", "ramole_plus", 3, {"bandwidth": 0.1}),
    Variant("k = 1", "ramole_plus", 1),
    Variant("k = 8", "ramole_plus", 8),
)


def best(
    candidates: Sequence[Candidate], k: int, *, options: Mapping[str, Value]
) -> list[Candidate]:
    """The k candidates of most evidence, best first."""
    worth = find_method(PLUS).rank(candidates, complete_options(PLUS, options))
    return [candidates[n] for n in sorted(range(len(worth)), key=lambda n: -worth[n])[:k]]


def named(variants: str) -> list[Variant]:
    """Those of these names, in this order; all where there are none. Raises RamoleError for a name
    that there is not."""
    known = {variant.name: variant for variant in VARIANTS}
    names = [name.strip() for name in variants.split(";") if name.strip()] or list(known)
    if unknown := [name for name in names if name not in known]:
        raise RamoleError(f"No variant is named {unknown[0]!r}; choose of {'; '.join(known)}.")
    return [known[name] for name in names]


def summarise(
    found: Sequence[Forced], plain: Sequence[Forced], *, tasks: Sequence[str], rival: str = RIVAL
) -> dict:
    """A variant's row of the table, against the rival's; differences have intervals over tasks,
    `tasks` are the rows' own."""
    mean = asdict(bootstrap([one.score for one in found]))
    pairs = list(zip(found, plain, strict=True))
    gap = asdict(bootstrap_groups([a.score - b.score for a, b in pairs], tasks))
    loss = asdict(bootstrap_groups([a.loss - b.loss for a, b in pairs], tasks))
    return {
        **_rounded(mean),
        "loss": round(sum(one.loss for one in found) / len(found), 3),
        "against": {"rival": rival, **_rounded(gap)},
        "loss_against": {"rival": rival, **_rounded(loss)},
    }


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in numbers.items()}


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    rows: Annotated[int, typer.Option(help="Dev rows of each task.")] = 8,
    tasks: Annotated[str, typer.Option(help="Comma separated; all of the pool if empty.")] = "",
    situations: Annotated[str, typer.Option(help="Of iid,ood,crowded.")] = "iid,ood,crowded",
    variants: Annotated[
        str,
        typer.Option(
            help="Separated by semicolons; the first is the others' rival. All, beside "
            "similarity, if empty."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the distractors.")] = 0,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "ablations.json"
    ),
) -> None:
    """Measure every variant; the file is written after each."""
    every = named(variants)
    report: dict = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "measure": "teacher-forced score on dev rows, 0 to 100, higher is better",
        "versions": versions(),
        "numbers": complete_options(PLUS, None),
        "rows": [],
    }
    with opened(data, seed=seed) as (ramole, crowd):
        names = [name for name in tasks.split(",") if name] or list(crowd.samples)
        asked = [
            (task, row)
            for task in read_rows(data, names, split="dev", count=rows)
            for row in task.rows
        ]
        metrics = [task.metric for task, _ in asked]
        owners = [task.task for task, _ in asked]
        report["rows_measured"] = len(asked)
        for situation in [name for name in situations.split(",") if name in SITUATIONS]:
            candidates = ramole.candidates(
                [
                    Request(
                        row.inputs,
                        method=PLUS,
                        k=EXAMINED,
                        exclude=crowd.excluded(situation, task.task),
                    )
                    for task, row in asked
                ]
            )
            plain: list[Forced] = []
            for variant in every:
                found = measure_forced(
                    ramole.engine,
                    ramole.base,
                    [row for _, row in asked],
                    metrics,
                    [best(each, variant.k, options=variant.options) for each in candidates],
                    method=variant.method,
                    options=variant.options if variant.method == PLUS else None,
                )
                plain = plain or found
                entry = {
                    "group": situation,
                    "name": variant.name,
                    **summarise(found, plain, tasks=owners, rival=every[0].name),
                }
                report["rows"].append(entry)
                out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                print(f"{situation:8} {variant.name:32} {entry['mean']:6.1f}  {entry['against']}")


if __name__ == "__main__":
    typer.run(main)
