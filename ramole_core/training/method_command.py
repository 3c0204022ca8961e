"""`python -m ramole_core train method NAME`, and `train router`, which trains `ramole`."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.methods import METHOD_LIST, find_row, read_values
from ramole_core.training.command_words import (
    Json,
    command_line,
)
from ramole_core.training.recipe import MethodRecipe, Schedule

Data = Annotated[Path, typer.Option(help="A folder of task folders, each named after its adapter.")]
Adapters = Annotated[str, typer.Option(help="Adapters to train on, comma separated; or data sets.")]
Out = Annotated[
    Path | None, typer.Option(help="The weights' folder; by default beside the sample pool.")
]
Dropout = Annotated[
    float | None,
    typer.Option(
        help="Chance that a whole LoRA is left out, where none are retrieved; by default 0.5, and "
        "0 of a fixed pool."
    ),
]
Retrieved = Annotated[
    int,
    typer.Option(
        help="Adapters that a row is mixed from, found for it; 0, a fixed pool, few: all."
    ),
]
Masked = Annotated[float, typer.Option(help="Chance that a row's own adapter is not found.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
BatchRows = Annotated[int, typer.Option(help="Rows a step.")]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate.")]
MaxTokens = Annotated[int, typer.Option(help="Longer rows are left out.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, order and dropout.")]


def trainable() -> str:
    """Each method that can be trained, and what a run may set."""
    return "; ".join(
        f"{row.name}: {', '.join(map(str, row.training))}" for row in METHOD_LIST if row.training
    )


def method(
    name: Annotated[str, typer.Argument(help="The method.")],
    data: Data,
    adapters: Adapters,
    out: Out = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"NAME=VALUE of the method's own. {trainable()}."),
    ] = None,
    dropout: Dropout = None,
    retrieved: Retrieved = 3,
    masked: Masked = 0.5,
    steps: Steps = 100,
    batch_rows: BatchRows = 12,
    learning_rate: LearningRate = 3e-3,
    max_tokens: MaxTokens = 160,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a method's own weights over adapters of the pool, which stay as they are; or measure
    the table that it reads."""
    recipe = MethodRecipe(
        name,
        read_values(setting or []),
        _dropout(name, dropout),
        retrieved,
        masked,
        Schedule(
            steps=steps,
            batch_rows=batch_rows,
            learning_rate=learning_rate,
            max_tokens=max_tokens,
            seed=seed,
            checkpoint_every=10,
        ),
    )
    _run(recipe, data=data, adapters=adapters, out=out, as_json=as_json)


def router(
    data: Data,
    adapters: Adapters,
    out: Out = None,
    rank: Annotated[int, typer.Option(help="s of the router.")] = 6,
    alpha: Annotated[float, typer.Option(help="alpha of the router.")] = 12.0,
    dropout: Dropout = None,
    retrieved: Retrieved = 3,
    masked: Masked = 0.5,
    steps: Steps = 100,
    batch_rows: BatchRows = 12,
    learning_rate: LearningRate = 3e-3,
    max_tokens: MaxTokens = 160,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the router of `ramole` over adapters of the pool, which stay as they are."""
    method(
        "ramole",
        data,
        adapters,
        out,
        [f"rank={rank}", f"alpha={alpha}"],
        dropout,
        retrieved,
        masked,
        steps,
        batch_rows,
        learning_rate,
        max_tokens,
        seed,
        as_json,
    )


def _dropout(name: str, given: float | None) -> float:
    from ramole_core.composition import find_method

    if given is not None:
        return given
    return 0.0 if find_method(name).fixed else 0.5


def _run(
    recipe: MethodRecipe, *, data: Path, adapters: str, out: Path | None, as_json: bool
) -> None:
    from ramole_core.base.shapes import read_shapes
    from ramole_core.composition import find_method
    from ramole_core.composition.trained import checksum_of
    from ramole_core.retrieval import Encoder
    from ramole_core.settings import load_settings
    from ramole_core.training.configured_base import load_configured_base
    from ramole_core.training.method import train_method
    from ramole_core.training.nearest import nearest_of
    from ramole_core.training.pool_loras import PoolLoras, read_loras
    from ramole_core.training.progress import show_progress
    from ramole_core.training.rows import read_task
    from ramole_core.training.task_table import write_task_table

    names = [name.strip() for name in adapters.split(",") if name.strip()]
    kind = find_method(recipe.method)
    found_for_each = min(recipe.retrieved, len(names) - (recipe.masked > 0))
    if kind.fixed or kind.experts(2) < 2 or found_for_each < 2:
        found_for_each = 0
    recipe = replace(recipe, retrieved=found_for_each)
    settings, row = load_settings(), find_row(recipe.method)
    tasks = [read_task(data / name) for name in names]
    base = load_configured_base()
    shapes = read_shapes(base.folder)
    folder = out or settings.adapters_dir / row.weights
    found = PoolLoras({}, {}, ())  # of a method that trains its own
    if not kind.brings:
        found = read_loras(names, settings=settings, shapes=shapes)
    near = None
    if recipe.retrieved and not kind.measures:
        tuned = settings.adapters_dir / "_retriever"
        encoder = Encoder(settings.encoder, data_dir=settings.data_dir, adapter=tuned)
        near = nearest_of(found.cards, encoder)
    with show_progress(recipe.method, quiet=as_json) as report:
        run = write_task_table if kind.measures else partial(train_method, near=near)
        progress = run(
            recipe,
            loras=found.loras,
            checksums=found.checksums,
            tasks=tasks,
            base=base,
            shapes=shapes,
            out_dir=folder,
            command=command_line(),
            report=report,
        )
    if as_json:
        checksum = checksum_of(folder, row)
        answer = {
            "method": recipe.method,
            "folder": str(folder),
            "adapters": names,
            "dev_losses": progress.dev_losses,
            "seed": recipe.schedule.seed,
            "base_checksum": base.checksum,
            "weights_checksum": checksum,
        }
        if recipe.method == "ramole":
            answer["router_checksum"] = checksum
        print(json.dumps(answer))
