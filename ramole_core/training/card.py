"""The files beside an adapter's tensors: `train.json`, the model card, the example inputs.

`train.json` is the record of the run; the card is drawn from it, so the two cannot disagree.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.pool.card import VECTOR_EXAMPLES
from ramole_core.pool.examples_and_readme import MAX_EXAMPLE
from ramole_core.training.checkpoint import Progress
from ramole_core.training.recipe import AdapterRecipe
from ramole_core.training.rows import RowCounts, Task
from ramole_core.training.weights_folder import run_facts, versions as versions, write_json


@dataclass(frozen=True)
class Provenance:
    """Facts of a run beyond its recipe and data."""

    base_name: str
    """The base's name on the Hub, or in the settings."""
    base_checksum: str
    """SHA-256 of the base's weights."""
    quantization: str
    """How the base was stored: `nf4`, `int4` or `none`."""
    dtype: str
    """Dtype of its products: `float32`, `bfloat16`."""
    command: str
    """The command line that repeats the run."""
    licence: str
    """The Hub's identifier of the licence that the data requires."""
    description: str
    """A few sentences: what the adapter does, for whom."""
    start: dict | None = None
    """The record of the adapter whose weights it began with."""


def write_record(
    folder: Path,
    recipe: AdapterRecipe,
    task: Task,
    progress: Progress,
    *,
    counts: RowCounts,
    origin: Provenance,
) -> None:
    """`train.json`: recipe, base, versions, losses and the command."""
    record = {
        **asdict(recipe),
        "data": {
            "name": task.name,
            "train_rows": counts.train,
            "dev_rows": counts.dev,
            "metric": task.metric,
        },
        **asdict(origin),
        **run_facts(progress),
    }
    write_json(folder / "train.json", record)


def read_record(folder: Path) -> dict | None:
    """The record of an adapter's training; None where it has none."""
    file = folder / "train.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (ValueError, RecursionError):
        raise RamoleError(f"{file} is broken; remove it, or train the adapter again.") from None


def draw_examples(task: Task, *, seed: int) -> list[str]:
    """Up to 20 example inputs of the task, none longer than the pool takes; the seed decides
    which."""
    short = [row.inputs for row in task.train if len(row.inputs) <= MAX_EXAMPLE]
    return random.Random(seed).sample(short, min(VECTOR_EXAMPLES, len(short)))


def write_card(folder: Path) -> None:
    """`README.md`, a Hub model card, from `train.json` and `examples.jsonl` in the folder."""
    record = read_record(folder)
    assert record is not None
    (folder / "README.md").write_text(card_text(record), encoding="utf-8")


def card_text(record: dict) -> str:
    """The model card of a record: front matter, description, recipe, numbers, command."""
    scale = record["rank"] ** 0.5 if record["rslora"] else record["rank"]
    layers = "all layers" if record["layers"] is None else f"layers {span(record['layers'])}"
    schedule, losses = record["schedule"], record["dev_losses"]
    steps = record.get("kept_step", schedule["steps"])  # older records keep the last weights
    first, last = losses[0], next((one for one in losses if one["step"] == steps), losses[-1])
    measured = min(schedule["dev_rows"], record["data"]["dev_rows"])  # older ones count all
    trainings = [record]
    while earlier := trainings[-1].get("start"):
        trainings.append(earlier)
    before = sum(one["kept_step"] for one in trainings[1:])
    began = f", after {before} steps of the commands above its own" if before else ""
    commands = "\n".join(one["command"] for one in reversed(trainings))
    return f"""---
base_model: {record["base_name"]}
library_name: peft
license: {record["licence"]}
tags:
- lora
- ramole
---
# {record["name"]}

{record["description"].strip()}

| | |
|---|---|
| base model | `{record["base_name"]}`, {record["quantization"]} |
| rank, alpha | {record["rank"]}, {record["alpha"]:g} (scale {record["alpha"] / scale:.3g}\
{", rank-stabilised" if record["rslora"] else ""}) |
| modules | {", ".join(record["modules"])}; {layers} |
| data | `{record["data"]["name"]}`, {record["data"]["train_rows"]} rows for training |
| training | {steps} steps of {schedule["batch_rows"]} rows, peak learning rate \
{schedule["learning_rate"]:g}, seed {schedule["seed"]}, {record["seconds"] / 60:.0f} minutes\
{began} |
| loss on dev answers | {first["adapter"]:.3f} before, {last["adapter"]:.3f} after \
(nats a token, {measured} rows) |

Prompts follow the base model's chat template with its default system message; the loss was taken on
answers only. {quantised(record["quantization"])}

```
{commands}
```
"""


def quantised(quantization: str) -> str:
    """A sentence: whether the numbers of a training are those of serving."""
    if quantization == "none":
        return "The base was not quantised in training; a quantised one may give other numbers."
    return "The base was quantised before training, so these numbers are those of serving."


def span(numbers: Sequence[int]) -> str:
    """Return layer numbers in short: `10-29`, or `3, 5, 9`."""
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(str(number) for number in numbers)
