"""Train the retriever: a LoRA on the sentence encoder, and a metric.

InfoNCE with in-batch negatives (LoraRetriever, arXiv 2402.09997, eq. 2), the positive being what is
served: the mean over other inputs of the same task. For input j of task t, with e the encoder,

    c_s  = unit(sum_i e(x_si)),   c_tj = unit(sum_{i != j} e(x_ti))
    loss = -log  exp(<e(x_tj), c_tj> / tau) / (exp(<e(x_tj), c_tj> / tau) + sum_{s != t} exp(<e(x_tj), c_s> / tau))

With two inputs a task this is the paper's loss, pair against pair. A metric with the words beside it
(`retriever_metric.py`) is then fitted to the tuned vectors of the same inputs, which takes no steps.
The loop is that of the other training commands, not sentence-transformers' trainer, which needs the
package `datasets`, has no loss over means, and does not resume to the same numbers.
"""  # noqa: E501

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ramole_core.errors import RamoleError
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.model_files import PACKAGED, find_model, hash_files
from ramole_core.retrieval.tuning import RECORD
from ramole_core.training.adapter import trained_parameters, write_adapter
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Trainable, TrainingRun, train
from ramole_core.training.material import fingerprint
from ramole_core.training.recipe import RetrieverRecipe
from ramole_core.training.retriever_metric import fit_metric
from ramole_core.training.retriever_model import TrainedEncoder
from ramole_core.training.rows import read_task
from ramole_core.training.weights_folder import run_facts, write_json

Texts = Mapping[str, Sequence[str]]
"""Example inputs by task."""
Embed = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]
Measure = Callable[[Embed], dict[str, float]]
EXAMPLES = 20
"""Inputs that stand for a task while it is measured, as many as an adapter has."""
DEV = 10
"""Dev inputs of each task that are measured."""


def train_retriever(
    recipe: RetrieverRecipe,
    *,
    texts: Texts,
    run: TrainingRun,
    measure: Measure | None = None,
    measured: object = (),
    source: str = PACKAGED[0],
    data_dir: Path = Path("data"),
) -> Progress:
    """Train on `texts` and write the folder that the `Encoder` of `source` reads.

    `measure` gets `embed` as it would be served by then, and gives figures by name; patience
    compares the one called `loss`. `measured`: the texts that it reads, which a resumed run shares.
    Raises RamoleError where fewer than two tasks have two texts.
    """
    usable = {name: tuple(rows) for name, rows in texts.items() if len(set(rows)) > 1}
    if len(usable) < 2:
        raise RamoleError(
            f"A retriever learns to separate tasks, and {len(usable)} of those given have two "
            "inputs or more; name two tasks or more."
        )
    folder = find_model(source, download_dir=data_dir / "encoders")
    name = f"sentence-transformers/{PACKAGED[0]}" if source in PACKAGED else source
    encoder, checksum = TrainedEncoder(folder, recipe), hash_files(folder)

    def loss_of(step: int) -> Tensor:
        drawn = draw(usable, recipe, step=step)
        vectors = encoder([text for rows in drawn for text in rows])
        return contrast(vectors.unflatten(0, (len(drawn), -1)), temperature=recipe.temperature)

    def figures() -> dict[str, float]:
        if measure is None:
            return {}
        metric = fit_metric(encoder.embed, usable, recipe.metric)
        return measure(lambda rows: metric(encoder.embed(rows), rows))

    def save(folder: Path, progress: Progress) -> None:
        write_adapter(encoder.model, folder, base_name=name)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's own, empty card
        fit_metric(encoder.embed, usable, recipe.metric).save(folder)
        record = {
            "schema": 1,
            "encoder": name,
            "encoder_checksum": checksum,
            "window": asdict(recipe.window),
            "metric": {"share": recipe.metric.share, "words": recipe.metric.words},
            "recipe": asdict(recipe),
            "trained_on": {name: len(rows) for name, rows in usable.items()},
            "command": run.command,
            **run_facts(progress, measured="dev"),
        }
        write_json(folder / RECORD, record)

    one = Trainable(
        name="loss",
        parameters=trained_parameters(encoder.model),
        loss=loss_of,
        dev_loss=figures,
        facts={
            "recipe": asdict(recipe),
            "encoder": checksum,
            "data": fingerprint((usable, measured)),
        },
        epoch=ceil(sum(map(len, usable.values())) / recipe.schedule.batch_rows),
        save=save,
    )
    return train(one, recipe.schedule, run)


@dataclass(frozen=True)
class TaskTexts:
    """Inputs by task: those to train on, EXAMPLES that stand for each, and DEV to measure."""

    train: dict[str, tuple[str, ...]] = field(default_factory=dict)
    examples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    dev: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_texts(data: Path, words: str, *, rows: int, seed: int) -> TaskTexts:
    """The tasks named in `words`, comma separated, with `rows` training inputs each.

    `a+b` is one task with the inputs of both: twins without a difference would only teach
    noise. Raises RamoleError for a task that is not there.
    """
    if rows < 2:
        raise RamoleError(f"{rows} inputs of a task make no pair; give at least 2.")
    found = TaskTexts()
    for group in filter(None, (word.strip() for word in words.split(","))):
        tasks = [read_task(data / name) for name in group.split("+")]
        held = [row.inputs for task in tasks for row in task.train]
        held_out = [row.inputs for task in tasks for row in task.dev]
        drawn = random.Random(f"{seed}/{group}").sample(held, min(rows, len(held)))
        found.train[group], found.examples[group] = tuple(drawn), tuple(drawn[:EXAMPLES])
        dev = random.Random(group).sample(held_out, min(DEV, len(held_out)))
        found.dev[group] = tuple(dev)
    return found


def draw(texts: Texts, recipe: RetrieverRecipe, *, step: int) -> list[list[str]]:
    """The texts of a step, as many of each of its tasks; a function of seed and step alone."""
    chance = random.Random(f"{recipe.schedule.seed}/{step}")
    names = chance.sample(sorted(texts), min(recipe.tasks, len(texts)))
    share = min(recipe.schedule.batch_rows // len(names), *(len(texts[name]) for name in names))
    return [chance.sample(list(texts[name]), share) for name in names]


def contrast(vectors: Float[Tensor, "t m d"], *, temperature: float) -> Float[Tensor, ""]:
    """The loss at the top of this file: m vectors of unit length for each of t tasks."""
    t, m, _ = vectors.shape
    total = vectors.sum(1)
    scores = torch.einsum("tmd,sd->tms", vectors, normalize(total, dim=-1))
    rest = normalize(total[:, None] - vectors, dim=-1)  # without the input itself
    own = torch.einsum("tmd,tmd->tm", vectors, rest)
    diagonal = torch.eye(t, dtype=torch.bool)[:, None]
    scores = torch.where(diagonal, own[..., None], scores)
    answers = torch.arange(t).repeat_interleave(m)
    return cross_entropy(scores.flatten(0, 1) / temperature, answers)


def measure_tasks(
    embed: Embed,
    *,
    examples: Texts,
    prompts: Texts,
    tuned: Sequence[str],
    temperature: float = RetrieverRecipe.temperature,
) -> dict[str, float]:
    """`loss`: that of the prompts of tasks in `tuned` among the tasks of `examples`, at this
    temperature; top-1 and top-3 of `prompts` in percent, those of `tuned` and the others apart."""
    names = list(examples)
    groups = np.split(
        embed([text for name in names for text in examples[name]]),
        np.cumsum([len(examples[name]) for name in names])[:-1],
    )
    pool = unit(np.stack([group.mean(0) for group in groups]))
    own = np.array([names.index(name) for name in prompts for _ in prompts[name]])
    scores = embed([text for name in prompts for text in prompts[name]]) @ pool.T
    places = rank_of_own(scores, own)
    learnt = np.isin(own, [names.index(name) for name in tuned if name in names])
    rows, answers = (torch.from_numpy(part[learnt]) for part in (scores, own))
    found = {"loss": cross_entropy(rows.float() / temperature, answers).item()}
    for label, mask in (("tuned", learnt), ("unseen", ~learnt)):
        if mask.any():
            for k in (1, 3):
                found[f"{label}_top{k}"] = round(100 * float((places[mask] < k).mean()), 2)
    return found


def rank_of_own(
    scores: Float32[np.ndarray, "queries n"], own: Sequence[int] | Int[np.ndarray, "queries"]
) -> Int[np.ndarray, "queries"]:
    """The number of adapters that score higher than the query's own."""
    return (scores > np.take_along_axis(scores, np.array(own)[:, None], axis=1)).sum(1)
