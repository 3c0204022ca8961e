"""Training rows in people's own words: the contents of each row under one of many instructions.

    python -m lab reword --data DATA --out REWORDED [--pool adapters]

`lab/wordings/TASK.json` has patterns that find the contents in a row's own instruction, and
wordings to put them into, written for this and not taken from any data. Every row of `train.jsonl`
but the share KEPT gets a wording. Every sixth wording is for `dev.jsonl` alone, of which every
second row keeps its own. A row that no pattern matches keeps its own words. REWORDED has the
folders; of a pool's adapters every second example is reworded too. People offer two to five labels
where the data offers six or more: so does a reworded row.

`lab/written/TASK.jsonl` has rows of plainer contents, as people would ask for them, written for
this too: half of what is trained on, where there are any. Every eighth is for `dev.jsonl` alone,
where they alternate with the data's.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from lab import harness
from ramole_core.errors import RamoleError
from ramole_core.pool.examples_and_readme import write_examples
from ramole_core.training.rows import read_lines

WORDINGS = Path(__file__).parent / "wordings"
WRITTEN = Path(__file__).parent / "written"
KEPT = 0.3
"""The share of training rows that keep their own instruction."""
EVERY = 6
"""Every sixth wording of a task is for dev rows alone."""
ASIDE = 8
"""Every eighth written row of a task is for dev rows alone."""
TIMES = 2
"""How many times a written row is trained on."""
WORD = re.compile(r"[a-z]+")
OFFERED = (2, 5)
"""How many labels a wording offers, at least and at most, where the data has more."""
Pool = Annotated[Path | None, typer.Option(help="Adapters whose examples are reworded too.")]
Out = Annotated[Path, typer.Option(help="Where the task folders are written.")]
Wording = Mapping
"""`prompt`, with the names of contents in braces, and `answers`, which replace the data's."""


@dataclass(frozen=True)
class Wordings:
    """A task's patterns and wordings, beside its training rows."""

    name: str
    patterns: Sequence[re.Pattern[str]]
    wordings: Sequence[Wording]
    rows: Sequence[Mapping[str, str]]

    @property
    def unseen(self) -> Sequence[Wording]:
        """The wordings of dev rows."""
        return self.wordings[EVERY - 1 :: EVERY]

    @property
    def seen(self) -> Sequence[Wording]:
        """The wordings of training rows."""
        return [one for n, one in enumerate(self.wordings) if n % EVERY != EVERY - 1]

    @cached_property
    def common(self) -> frozenset[str]:
        """Words that are written small within the rows' contents."""
        found = [
            text for row in self.rows for text in (self.contents(row["inputs"]) or {}).values()
        ]
        return frozenset(word for text in found for word in WORD.findall(text[1:]))

    def contents(self, text: str) -> dict[str, str] | None:
        """A row's contents by name, by the first pattern that matches all of it."""
        found = next((m for one in self.patterns if (m := one.fullmatch(text))), None)
        return None if found is None else found.groupdict()

    def reworded(
        self, row: Mapping[str, str], wording: Wording, parts: Mapping[str, str]
    ) -> dict[str, str]:
        """The row under a wording, its answer as the wording asks for it."""
        values = dict(parts) | {f"{n}_inline": inline(t, self.common) for n, t in parts.items()}
        if "options" in parts:
            values["options"] = f"OPTIONS:\n{parts['options']}"
            values["choices"] = choices(parts["options"])
        prompt = wording["prompt"]
        for name, text in values.items():  # not str.format: contents and wordings may have braces
            prompt = prompt.replace(f"{{{name}}}", text)
        targets = row["targets"]
        return {
            **row,
            "inputs": prompt,
            "targets": wording.get("answers", {}).get(targets, targets),
        }


def read_wordings(task: str, data: Path) -> Wordings:
    """A task's wordings and its training rows."""
    told = json.loads((WORDINGS / f"{task}.json").read_text("utf-8"))
    patterns = [re.compile(one, re.DOTALL) for one in told["patterns"]]
    return Wordings(task, patterns, told["wordings"], read_lines(data / task / "train.jsonl"))


def fewer(options: str, target: str, chance: random.Random) -> str:
    """A block of options with OFFERED of its lines, the target's among them."""
    lines = options.splitlines()
    if len(lines) <= OFFERED[1]:
        return options
    others = [line for line in lines if line != f"- {target}"]
    kept = {f"- {target}", *chance.sample(others, chance.randint(*OFFERED) - 1)}
    return "\n".join(line for line in lines if line in kept)


def choices(options: str) -> str:
    """`a, b or c` of a block of options."""
    names = [line.removeprefix("- ") for line in options.splitlines()]
    return " or ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]


def inline(text: str, common: frozenset[str]) -> str:
    """The text within a sentence: no full stop, and no capital where the word is a `common` one."""
    first = WORD.match(text.lower())
    small = first is not None and first[0] in common and text[:2] != text[:2].upper()
    return (text[:1].lower() + text[1:] if small else text).rstrip(" .?")


def reword(task: Wordings, data: Path, out: Path, *, seed: int) -> int:
    """Write a task's folder; returns how many of the training rows a pattern matches."""
    rows = {"train": task.rows, "dev": read_lines(data / task.name / "dev.jsonl")}
    found = {split: [task.contents(row["inputs"]) for row in rows[split]] for split in rows}
    matched = sum(one is not None for one in found["train"])
    if not matched:
        raise RamoleError(f"No training row of {task.name} matches the patterns of its wordings.")
    chance = random.Random(f"{seed}/{task.name}")
    out.mkdir(parents=True, exist_ok=True)
    for split, some in (("train", task.seen), ("dev", task.unseen)):
        lines = []
        for number, (row, parts) in enumerate(zip(rows[split], found[split], strict=True)):
            own = chance.random() < KEPT if split == "train" else number % 2 == 0
            if not own and parts is not None:
                wording = chance.choice(some)
                if "options" in parts:
                    parts["options"] = fewer(parts["options"], row["targets"], chance)
                row = task.reworded(row, wording, parts)
            lines.append(row)
        lines = with_written(lines, read_written(task.name)[split], split, chance)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        (out / f"{split}.jsonl").write_text(text, "utf-8")
    return matched


def read_written(name: str) -> dict[str, list[dict[str, str]]]:
    """The written rows of a task, apart for `train` and `dev`; none where there is no file."""
    file = WRITTEN / f"{name}.jsonl"
    rows = read_lines(file) if file.is_file() else []
    dev = rows[ASIDE - 1 :: ASIDE]
    return {"train": [row for n, row in enumerate(rows) if n % ASIDE != ASIDE - 1], "dev": dev}


def with_written(
    rows: list[dict[str, str]],
    written: Sequence[Mapping[str, str]],
    split: str,
    chance: random.Random,
) -> list[dict[str, str]]:
    """Training rows of which half are written; or dev rows, every second one written while there
    are any."""
    written = [{**rows[0], **row} for row in written]
    if split == "train":
        count = TIMES * len(written)
        return rows if not count else chance.sample(rows, min(count, len(rows))) + written * TIMES
    for n, row in enumerate(written[: len(rows)]):
        rows.insert(2 * n + 1, row)
    return rows


def reword_examples(task: Wordings, texts: Sequence[str], *, seed: int) -> list[str]:
    """An adapter's example inputs, every second one of them under a wording of its own."""
    wordings = random.Random(f"{seed}/{task.name}/examples").sample(task.seen, len(task.seen))
    made = list(texts)
    for n, text in enumerate(texts[::2]):
        if (parts := task.contents(text)) is not None:
            row = {"inputs": text, "targets": ""}
            made[2 * n] = task.reworded(row, wordings[n % len(wordings)], parts)["inputs"]
    return made


def main(
    data: harness.Data,
    out: Out,
    tasks: harness.Tasks = "",
    pool: Pool = None,
    seed: harness.Seed = 0,
) -> None:
    """Write the reworded folders of these tasks, or of all that have wordings."""
    names = harness.words(tasks) or sorted(file.stem for file in WORDINGS.glob("*.json"))
    for name in names:
        task = read_wordings(name, data)
        matched = reword(task, data, out / name, seed=seed)
        print(f"{name:20} {matched} of {len(task.rows)} training rows matched")
        if pool is not None:
            given = (pool / name / "examples.jsonl").read_text("utf-8").splitlines()
            texts = reword_examples(task, [json.loads(one)["text"] for one in given], seed=seed)
            write_examples(out / name, texts)
