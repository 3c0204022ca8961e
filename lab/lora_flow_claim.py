"""LoRA-Flow's own claim, small: two adapters whose skills one answer needs together.

    python -m lab lora_flow_claim --data DATA

Each new task spoils the texts of a task of the pool, so that an answer needs another adapter too:
capital letters beside punctuation, spaces, splitting or translating. The gate is trained as in the
paper (arXiv 2402.11455) on 200 rows, five epochs; LoraHub finds its weights on five of them. The
first adapter was trained on these rows' whole texts, so the gate begins with it, as there. Beside
them: the base, each adapter alone, equal weights, and the average of both (`fusion`). Intervals are
of drawing tasks. What is finished stays in `--work`.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lab import harness
from lab.evaluation.intervals import compare_seeds
from lab.evaluation.metrics import rouge_of_marks
from lab.train_pool import Quantization
from ramole_core.request import Request
from ramole_core.settings import holds_weights
from ramole_core.training.rows import Row, read_lines

ROWS, FEW, MAX_LENGTH = 200, 5, 220
"""Rows of training, of LoraHub's search, and letters of the longest text or answer."""
GATE = "--until '5 epochs' --learning-rate 1e-3 --batch-rows 4 --dev-rows 40 --measure-every 50"


def _no_marks(text: str) -> str:
    return re.sub(r"[.,;:!?]", "", text)


def _no_spaces(text: str) -> str:
    return text.replace(" ", "")


@dataclass(frozen=True)
class Pair:
    """A new task of two adapters, the first of which is of the task whose rows it takes."""

    adapters: tuple[str, str]
    asked: str
    spoil: Sequence[Callable[[str], str]]
    words: str = ""
    """The instruction in a row's question, as a pattern; the rest of the question is spoiled then.
    Empty: the row's answer is."""

    def rows(self, data: Path, split: str) -> list[Row]:
        """The rows of the pool's task that have the instruction and are short enough, spoiled."""
        found = []
        for line in read_lines(data / self.adapters[0] / f"{split}.jsonl"):
            text, target = line["targets"], line["targets"]
            if self.words:
                text, count = re.subn(self.words, "", line["inputs"])
                if not count:
                    continue
            for spoil in self.spoil:
                text = spoil(text)
            if max(map(len, (text, target))) <= MAX_LENGTH:
                found.append(Row(f"{self.asked}\n{text.strip()}", target))
        return found


SPLIT = (
    r"Make the following easier to read by breaking it into two sentences\.|"
    r"Split this long sentence into [^:]*:|Rewrite the above as two sentences\."
)
SPANISH = (
    r'Translate to Spanish:|How do you say "|" in Spanish\?|'
    r"Give the Spanish translation of this sentence\."
)
TASKS = {
    "punctuation and capitals": Pair(
        ("fix_punct", "true_case"),
        "Add the missing punctuation and fix the capital letters:",
        (_no_marks, str.lower),
    ),
    "spaces and capitals": Pair(
        ("word_segment", "true_case"),
        "Put the spaces back and fix the capital letters:",
        (_no_spaces, str.lower),
    ),
    "spaces and punctuation": Pair(
        ("word_segment", "fix_punct"),
        "Put the spaces back and add the missing punctuation:",
        (_no_spaces, _no_marks),
    ),
    "two sentences and capitals": Pair(
        ("wiki_split", "true_case"),
        "Break this into two sentences and fix the capital letters:",
        (str.lower,),
        SPLIT,
    ),
    "two sentences and punctuation": Pair(
        ("wiki_split", "fix_punct"),
        "Break this into two sentences and add the missing punctuation:",
        (_no_marks,),
        SPLIT,
    ),
    "Spanish and capitals": Pair(
        ("para_crawl_enes", "true_case"),
        "Translate to Spanish with the right capital letters:",
        (str.lower,),
        SPANISH,
    ),
}


def main(
    data: harness.Data,
    seeds: Annotated[str, typer.Option(help="Of the trainings, comma separated.")] = "0,1,2",
    rows: harness.Rows = 20,
    quantization: Quantization = "int4",
    work: harness.Work = Path("lora_flow_claim"),
    out: harness.Out = harness.RESULTS / "lora_flow.json",
) -> None:
    """Train the gates that are missing, ask what is missing, and write the table."""
    how = {"base": harness.base_name(), "quantization": quantization, "gate": GATE, "rows": rows}
    work = work / harness.digest(how, 12)
    kept, found, facts = harness.Kept(work), {}, {}
    for name, pair in TASKS.items():
        train, dev = pair.rows(data, "train")[:ROWS], pair.rows(data, "dev")
        place = name.replace(" ", "_")

        def ask(
            systems: Mapping[str, Mapping[str, object]],
            trained: Path | None = None,
            dev: Sequence[Row] = dev,
        ) -> dict[str, Any]:
            with harness.served(trained=trained, quantization=quantization) as ramole:
                return {
                    "facts": harness.facts_of(ramole),
                    "scores": {
                        system: answer(ramole, dev[:rows], **{"method": system, **words})
                        for system, words in systems.items()
                    },
                }

        made = []
        for seed in harness.words(seeds):
            folder = work / f"{place}_{seed}"
            train_gate(pair, train, dev[rows:], folder, seed, quantization)
            ours = partial(ask, {"lora_flow": {}}, folder / "trained")
            made.append(kept.get(f"{place}_{seed}", ours))
        rival = kept.get(place, partial(ask, rivals(pair, train[:FEW])))
        facts = facts or rival["facts"]
        scores = {system: [each] for system, each in rival["scores"].items()}
        found[name] = {"lora_flow": [one["scores"]["lora_flow"] for one in made], **scores}
    told = {name: pair.adapters for name, pair in TASKS.items()}
    results = harness.Results(out, facts, gate=GATE, rows=rows, pairs=told)
    results.write(
        measure="ROUGE-L of words and marks as written",
        table=compare_seeds(found, ours="lora_flow"),
    )


def rivals(pair: Pair, few: Sequence[Row]) -> dict[str, dict[str, object]]:
    """What each rival is asked with, by its name."""
    both: dict[str, object] = {"adapters": pair.adapters}
    alone: dict[str, dict[str, object]] = {
        f"adapter {n}": {"method": "mixture", "adapters": (name,)}
        for n, name in enumerate(pair.adapters, 1)
    }
    few_shot = {**both, "examples": [(row.inputs, row.targets) for row in few]}
    return {"lorahub": few_shot, "mixture": both, "fusion": both, **alone, "base": {}}


def answer(ramole, dev: Sequence[Row], **words) -> list[float]:
    """The score of each row's answer, in percent."""
    asked = [Request(row.inputs, max_new_tokens=90, trace=False, **words) for row in dev]
    made = ramole.generate(asked)
    return [rouge_of_marks(one.text, row.targets) for one, row in zip(made, dev, strict=True)]


def train_gate(
    pair: Pair,
    train: Sequence[Row],
    dev: Sequence[Row],
    folder: Path,
    seed: str,
    quantization: str,
) -> None:
    """Train one gate where it is missing; each of the two adapters has half of the rows."""
    out = folder / "trained" / "_lora_flow"
    if holds_weights(out):
        return
    for place, name in enumerate(pair.adapters):
        harness.write_rows(folder / "rows" / name, train=train[place::2], dev=dev[place::2])
    words = ["train", "method", "lora_flow", "--data", str(folder / "rows"), "--seed", seed]
    words += ["--adapters", ",".join(pair.adapters), "--out", str(out)]
    words += shlex.split(GATE)
    harness.run_product(words, {"RAMOLE_QUANTIZATION": quantization})
