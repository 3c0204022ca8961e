"""Whether answers to people's own words are of use, as readers judge who are told nothing else.

    python -m lab usable > answers.md
    python -m lab usable --verdicts A.json,B.json

The first three prompts of each adapter in `prompts/second_half.json`, by the default method, as the
page asks them: nobody names an adapter. What is printed is for the readers, numbered prompts and
answers alone. A file of verdicts is one reader's: `right`, `usable` or `wrong` by number; they are
added to the answers that are there.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab import harness
from lab.evaluation.second_half import PROMPTS
from lab.evaluation.visits import found_for
from ramole_core.errors import RamoleError
from ramole_core.request import Request

EACH = 3
WORDS = ("right", "usable", "wrong")
Verdicts = Annotated[str, typer.Option(help="Files of verdicts, comma separated.")]


def main(
    verdicts: Verdicts = "",
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "usable.json",
) -> None:
    """Ask the prompts, or add what readers said of the answers."""
    if verdicts:
        said = json.loads(out.read_text("utf-8"))
        given = [json.loads(Path(one).read_text("utf-8")) for one in verdicts.split(",")]
        said |= judged(said["rows"], given)
        harness.write_report(out, said)
        return
    with harness.served() as ramole:
        pool = {card.name for card in ramole.pool.cards()}
        asked = [
            {"adapter": name, "prompt": one["prompt"]}
            for name, prompts in json.loads(PROMPTS.read_text("utf-8"))["phrased"].items()
            for one in prompts[:EACH]
            if name in pool
        ]
        answers = ramole.generate(
            [Request(one["prompt"], max_new_tokens=96, trace=False) for one in asked]
        )
        rows = [
            {**one, "found": found_for(answer), "answer": answer.text}
            for one, answer in zip(asked, answers, strict=True)
        ]
        harness.Results(out, harness.facts_of(ramole)).write(rows=rows)
    print(text_of(rows))


def text_of(rows: Sequence[Mapping[str, object]]) -> str:
    """What the readers see."""
    return "\n".join(
        f"### {n}\nREQUEST:\n{row['prompt']}\n\nANSWER:\n{row['answer']}\n"
        for n, row in enumerate(rows)
    )


def judged(
    rows: Sequence[Mapping[str, object]], verdicts: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    """The rows with their verdicts, and counts: an answer is of use where all readers say so."""
    for each in verdicts:
        if set(each) != {str(n) for n in range(len(rows))} or not set(each.values()) <= {*WORDS}:
            raise RamoleError(
                f"A file of verdicts has other numbers or words than 0 to {len(rows) - 1} and "
                f"{', '.join(WORDS)}; give each answer one."
            )
    read = [{**row, "verdicts": [each[str(n)] for each in verdicts]} for n, row in enumerate(rows)]
    of_use: dict[str, list[bool]] = defaultdict(list)
    for row in read:
        of_use[str(row["adapter"])].append("wrong" not in row["verdicts"])
    found = [row for row in read if row["found"][:1] == [row["adapter"]]]  # pyright: ignore
    counts = {
        "answers_of_use": sum(map(sum, of_use.values())),
        "of": len(read),
        "with_the_right_adapter_first": len(found),
        "of_these_of_use": sum("wrong" not in row["verdicts"] for row in found),
        "adapters": len(of_use),
        "adapters_all_of_use": sum(map(all, of_use.values())),
        "adapters_any_of_use": sum(map(any, of_use.values())),
        "by_adapter": {name: sum(each) for name, each in of_use.items()},
    }
    return {"judged": counts, "rows": read}
