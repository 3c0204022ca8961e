"""What each piece of `ramole_plus` is worth, on dev rows, beside similarity and mixture.

    python -m lab evidence_table --data DATA

A variant takes its k adapters from the nearest 32 by its own evidence and mixes them by its own
gate; the rivals get the same evidence for their choice too, so that what the choice gives and what
the gate gives can be told apart. Rows are measured as `forced.py` says; differences to plain
similarity are paired by row, with 95 % bootstrap intervals over tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import typer

from lab import harness
from lab.evaluation.cells import Cell, Cells, compare_rows, fill, measured, owners
from lab.evaluation.command import opened
from lab.evaluation.evaluate import read_rows
from lab.evaluation.facts import own_facts, rows_digest, shared_facts
from lab.evaluation.forced import measure_forced
from lab.evaluation.situations import SITUATIONS
from ramole_core.composition import Candidate, find_method
from ramole_core.composition.ramole_plus import EXAMINED
from ramole_core.errors import RamoleError
from ramole_core.methods import Value, complete_options
from ramole_core.request import Request

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
    Variant("similarity, chosen so, no more where two fit", "similarity", 3, {"tied": 0.0}),
    Variant("ramole, chosen by evidence", "ramole"),
    Variant("without surprise", "ramole_plus", 3, {"surprise": 0.0}),
    Variant("without similarity", "ramole_plus", 3, {"bandwidth": 1e6}),
    Variant("the same weights for every token", "ramole_plus", 3, {"own": 0.0}),
    Variant("half the surprise", "ramole_plus", 3, {"surprise": 1.0}),
    Variant("twice the surprise", "ramole_plus", 3, {"surprise": 4.0}),
    Variant("no more where two fit", "ramole_plus", 3, {"tied": 0.0}),
    Variant("twice the bandwidth", "ramole_plus", 3, {"bandwidth": 0.1}),
    Variant("half the bandwidth", "ramole_plus", 3, {"bandwidth": 0.025}),
    Variant("a quarter of the bandwidth", "ramole_plus", 3, {"bandwidth": 0.0125}),
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
    found: Mapping[str, Cell], plain: Mapping[str, Cell], *, rival: str = RIVAL
) -> dict[str, object]:
    """A variant's row of the table, against the rival's cells; both are by task."""
    score, loss = (
        compare_rows(
            measured(found, name), measured(plain, name), owners(found, name), rival=rival, digits=3
        )
        for name in ("score", "loss")
    )
    return {**score, "loss": loss["mean"], "loss_against": loss["against"]}


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 8,
    skip: harness.Skip = 0,
    tasks: harness.Tasks = "",
    situations: Annotated[str, typer.Option(help="Of iid,ood,crowded.")] = "iid,ood,crowded",
    variants: Annotated[
        str, typer.Option(help="Separated by semicolons; the first is the others' rival.")
    ] = "",
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("evidence_table"),
    out: harness.Out = harness.RESULTS / "ablations.json",
) -> None:
    """Measure every variant; the file is written after each."""
    every = named(variants)
    by_name = {variant.name: variant for variant in every}
    with opened(data, seed=seed) as (ramole, crowd):
        names = harness.words(tasks) or list(crowd.samples)
        asked = read_rows(data, names, split="dev", count=rows, skip=skip)
        pairs = [(task, row) for task in asked for row in task.rows]
        facts = shared_facts(ramole, crowd) | {"rows_of_each": rows, "skipped": skip, "seed": seed}
        facts |= {"questions": rows_digest(asked)}

        def own(name: str) -> dict[str, object]:
            one = by_name[name]
            chosen = complete_options(PLUS, one.options)
            return {"variant": asdict(one), "chosen": chosen, **own_facts(ramole, one.method)}

        cells = Cells(work, facts, own)
        results = harness.Results(
            out,
            facts,
            measure="teacher-forced score on dev rows, 0 to 100, higher is better",
            numbers=complete_options(PLUS, None),
            rows_measured=len(pairs),
        )

        @cache
        def candidates(situation: str) -> Sequence[Sequence[Candidate]]:
            plain = Request("-", method=PLUS, k=EXAMINED)
            hidden = {name: crowd.excluded(situation, name) for name in names}
            return ramole.candidates(
                [replace(plain, prompt=r.inputs, exclude=hidden[t.task]) for t, r in pairs]
            )

        def measure(
            situation: str, variant: Variant, missing: Sequence[str]
        ) -> Iterator[tuple[str, Cell]]:
            options, method = variant.options, variant.method
            mine = [n for n, (task, _) in enumerate(pairs) if task.task in missing]
            near = candidates(situation)
            chosen = [best(near[n], variant.k, options=options) for n in mine]
            found = measure_forced(
                ramole.engine,
                ramole.base,
                [pairs[n][1] for n in mine],
                [pairs[n][0].metric for n in mine],
                chosen,
                method=method,
                options=options if method == PLUS else None,
            )
            whose = [pairs[n][0].task for n in mine]
            for name in missing:
                here = [n for n, task in enumerate(whose) if task == name]
                adapters = [[one.name for one in chosen[n]] for n in here]
                measures = {"loss": [found[n].loss for n in here]}
                yield name, Cell([found[n].score for n in here], [], adapters, measures=measures)

        table: list[dict] = []
        for situation in [name for name in harness.words(situations) if name in SITUATIONS]:
            plain: Mapping[str, Cell] = {}
            for variant in every:
                make = partial(measure, situation, variant)
                found = fill(cells, situation, variant.name, names, make)
                plain = plain or found
                row = summarise(found, plain, rival=every[0].name)
                table.append({"group": situation, "name": variant.name, **row})
                results.write(rows=table)
                print(f"{situation:8} {variant.name:32} {row['mean']:6.1f}  {row['against']}")
