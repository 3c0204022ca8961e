"""LoraHub's own claim: weights of twenty random adapters, found on five rows of an unseen task.

    python -m lab lora_hub_claim --data DATA

As in the paper (arXiv 2307.13269): no adapter of the pool was trained on the tasks, twenty of the
pool are drawn, and a search of forty steps finds their weights on five rows; all of it for several
seeds. Every rival gets the same five rows: as turns before the question (the base, in context), and
as the rows of a LoRA that is trained on them. Beside them the base without examples, and the
average of the same twenty (`fusion`). Intervals are of drawing tasks. What is finished stays in
`--work`.
"""

import random
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab import harness
from lab.evaluation.intervals import compare_seeds
from lab.evaluation.metrics import score
from lab.train_pool import Quantization
from ramole_core.request import Request
from ramole_core.settings import holds_weights
from ramole_core.training.rows import Row

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole
    from ramole_core.training.rows import Task

TASKS = (
    "ag_news_subset,cola,commonsense_qa,emotion_tweet,glue_mrpc,irony_tweet,mnli_matched,sst2,subj,"
    "trec"
)
FEW, ADAPTERS = 5, 20
RECIPE = "--rank 4 --until 20 --learning-rate 1e-3 --batch-rows 5 --measure-every 20"
OURS, LORA = "lorahub", "few_rows"
Scores = Mapping[str, Sequence[float]]
"""By system: the score of each row, in percent."""


def main(
    data: harness.Data,
    tasks: harness.Tasks = TASKS,
    seeds: Annotated[str, typer.Option(help="Of what is drawn, comma separated.")] = "0,1,2,3,4",
    rows: harness.Rows = 12,
    quantization: Quantization = "int4",
    work: harness.Work = Path("lora_hub_claim"),
    out: harness.Out = harness.RESULTS / "lora_hub.json",
) -> None:
    """Ask what is missing, and write the table."""
    how = {"base": harness.base_name(), "quantization": quantization, "lora": RECIPE, "rows": rows}
    work = work / harness.digest(how, 12)
    kept, found = harness.Kept(work), dict[str, dict[str, list[Sequence[float]]]]()
    with harness.served(quantization=quantization) as ramole:
        facts = harness.facts_of(ramole)
        pool = [card.name for card in ramole.pool.cards()]
        for seed in harness.words(seeds):
            for name, task in harness.read_tasks(data, harness.words(tasks), rows=rows).items():
                chance = random.Random(f"{name} {seed}")
                few = chance.sample(task.train, FEW)
                drawn = chance.sample(sorted(pool), ADAPTERS)

                def ask(own=f"few_{name}_{seed}", task=task, few=few, drawn=tuple(drawn)) -> Scores:
                    train_lora(ramole, few, work / own, quantization)
                    asked = {**systems(few, drawn), LORA: {"method": "mixture", "adapters": (own,)}}
                    made = {name: answer(ramole, task, words) for name, words in asked.items()}
                    ramole.pool.remove(own)
                    return made

                for system, scores in kept.get(f"{name}_{seed}", ask).items():
                    found.setdefault(name, {}).setdefault(system, []).append(scores)
    results = harness.Results(out, facts, seeds=seeds, rows=rows, lora=RECIPE)
    results.write(
        measure="points of score, higher is better", table=compare_seeds(found, ours=OURS)
    )


def systems(few: Sequence[Row], drawn: Sequence[str]) -> dict[str, dict[str, object]]:
    """What LoraHub and those that are asked without training are asked with, by name."""
    pairs = [(row.inputs, row.targets) for row in few]
    return {
        OURS: {"method": "lorahub", "adapters": drawn, "examples": pairs},
        "fusion": {"method": "fusion", "adapters": drawn},
        "base": {"method": "base"},
        "in_context": {"method": "base", "history": pairs},
    }


def answer(ramole: "Ramole", task: "Task", words: Mapping[str, Any]) -> list[float]:
    """The score of the answer to each dev row, in percent."""
    asked = [Request(row.inputs, max_new_tokens=16, trace=False, **words) for row in task.dev]
    made = ramole.generate(asked)
    return score(task.metric, [one.text for one in made], [row.targets for row in task.dev])


def train_lora(ramole: "Ramole", few: Sequence[Row], folder: Path, quantization: str) -> None:
    """Train a LoRA on the rows, and add it to the pool under the folder's name."""
    out = folder / "adapter"
    if not holds_weights(out):
        harness.write_rows(folder, train=few, dev=few)
        words = ["train", "adapter", "--data", str(folder), "--out", str(out), *shlex.split(RECIPE)]
        harness.run_product(words, {"RAMOLE_QUANTIZATION": quantization})
    ramole.pool.add(out, name=folder.name)
