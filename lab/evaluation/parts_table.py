"""Two and three tasks in one prompt: how it is cut, and what the parts are worth.

    python -m lab parts_table --data DATA

*Cut*: the inputs of all tasks of the data, of which hardly any should be cut, and prompts of n
sample tasks, an empty line between their inputs. *Answers*: such prompts answered freely, as one
(`split=False`), part by part, and asked as the turns of a chat, which bounds what a cut can give;
each part's answer is scored by its task's metric, one answer to all of them is taken apart by lines
as `composite_n.py` says. Intervals are over sets of tasks.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from lab import harness
from lab.evaluation.composite import BETWEEN
from lab.evaluation.composite_n import cut, draw_sets, score_parts, short
from lab.evaluation.evaluate import Rows, read_rows
from lab.evaluation.facts import ask_once, clean_commit
from lab.evaluation.intervals import bootstrap, paired_difference
from ramole_core.request import Request
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.rows import Row

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

WAYS = ("base", "whole", "parts", "turns")
Asked = tuple[tuple[str, ...], tuple[Row, ...]]
"""The tasks of a prompt, and their rows."""


def draw(rows: Sequence[Rows], n: int, count: int, *, seed: int) -> list[Asked]:
    """`count` sets of n tasks with a row of each."""
    used = {name: cycle(found) for name, found in short(rows).items()}
    sets = draw_sets(sorted(used), n, count, seed=seed)
    return [(names, tuple(next(used[name]) for name in names)) for names in sets]


def prompt_of(asked: Asked) -> str:
    """Their inputs, with empty lines between."""
    return BETWEEN.join(row.inputs.strip() for row in asked[1])


def measure_cuts(ramole: "Ramole", ordinary: Sequence[Rows]) -> dict[str, object]:
    """Percent of ordinary prompts that are cut: of all, and of each task where some are."""
    each = {
        task.task: [len(ramole.parts(Request(row.inputs))) > 1 for row in task.rows]
        for task in ordinary
    }
    every = [100.0 * one for found in each.values() for one in found]
    some = {name: 100 * sum(found) / len(found) for name, found in each.items() if any(found)}
    return {"prompts": len(every), "cut": bootstrap(every).rounded(2), "by_task": some}


def found_right(ramole: "Ramole", asked: Asked) -> float:
    """100 where the prompt is cut between its tasks."""
    inputs = tuple(row.inputs.strip() for row in asked[1])
    return 100.0 * (ramole.parts(Request(prompt_of(asked))) == inputs)


def answers(ramole: "Ramole", asked: Sequence[Asked], way: str, tokens: int) -> list[list[str]]:
    """What was answered to each row of each prompt."""
    plain = Request("-", trace=False, split=False, max_new_tokens=tokens)
    if way == "turns":
        talks: list[list[tuple[str, str, list[str]]]] = [[] for _ in asked]
        for n in range(len(asked[0][1])):
            turns = [
                replace(plain, prompt=rows[n].inputs.strip(), history=tuple(talk))
                for (_, rows), talk in zip(asked, talks, strict=True)
            ]
            for talk, turn, one in zip(talks, turns, ramole.generate(turns), strict=True):
                talk.append((turn.prompt, one.text, one.adapters))
        return [[text for _, text, _ in talk] for talk in talks]
    said = {"base": {"method": "base"}, "whole": {}, "parts": {"split": None}}[way]
    requests = [
        replace(plain, prompt=prompt_of(one), max_new_tokens=tokens * len(one[1]), **said)
        for one in asked
    ]
    found = []
    for one, (_, rows) in zip(ramole.generate(requests), asked, strict=True):
        spans = cut(one.text, len(rows))
        whole = len(one.parts) != len(rows)
        parts = [one.text[low:high] for low, high in spans] if whole else []
        found.append(parts or [part.text for part in one.parts])
    return found


def main(
    data: harness.Data = harness.DATA,
    n: Annotated[str, typer.Option(help="Tasks in a prompt, comma separated.")] = "2,3",
    sets: Annotated[int, typer.Option(help="Prompts of each n.")] = 60,
    rows: harness.Rows = 100,
    split: harness.Split = "dev",
    tokens: Annotated[int, typer.Option(help="Longest answer to one task.")] = 48,
    quantization: Annotated[str, typer.Option(help="How the base is held.")] = "int4",
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "parts.json",
) -> None:
    """Cut the prompts of all tasks and composed ones, and answer the composed ones."""
    every = sorted(file.parent.name for file in data.glob(f"*/{split}.jsonl"))
    with harness.served(quantization=quantization) as ramole:
        samples = [card.name for card in ramole.pool.cards()]
        drawn = read_rows(data, samples, split=split, count=100)
        metrics = {task.task: task.metric for task in drawn}
        facts = harness.facts_of(ramole)
        if split != "dev":
            asked_by = facts | {"commit": clean_commit(), "n": n, "sets": sets, "seed": seed}
            ask_once(f"{split}_parts", asked_by, recorded_command("lab"), out.parent)
        results = harness.Results(out, facts, split=split, sets=sets, tokens=tokens, seed=seed)
        ordinary = read_rows(data, every, split=split, count=rows)
        results.write(ordinary=measure_cuts(ramole, ordinary))
        for count in map(int, harness.words(n)):
            asked = draw(drawn, count, sets, seed=seed)
            cuts = bootstrap([found_right(ramole, one) for one in asked])
            found = {
                way: [
                    fmean(score_parts(texts, [row.targets for row in rows], names, metrics))
                    for (names, rows), texts in zip(
                        asked, answers(ramole, asked, way, tokens), strict=True
                    )
                ]
                for way in WAYS
            }
            table = {
                way: {
                    **bootstrap(found[way]).rounded(2),
                    "minus_turns": paired_difference(found[way], found["turns"]).rounded(2),
                }
                for way in WAYS
            }
            results.write(**{f"composite-{count}": {"right_cut": cuts.rounded(1), **table}})
            print(count, cuts, {way: table[way]["mean"] for way in WAYS}, flush=True)
