"""`python -m ramole_core train retriever`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.training.command_words import Json, command_line
from ramole_core.training.retriever_recipe import RetrieverRecipe

RETRIEVER = RetrieverRecipe()


def retriever(
    data: Annotated[Path, typer.Option(help="A folder of task folders.")],
    tasks: Annotated[
        str, typer.Option(help="Tasks to learn, comma separated; `a+b` counts as one task.")
    ],
    unseen: Annotated[
        str, typer.Option(help="Tasks that are only measured, comma separated.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="The tuning's folder; by default the sample pool's.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Training inputs of each task.")] = 200,
    rank: Annotated[int, typer.Option(help="r of the LoRA.")] = RETRIEVER.rank,
    alpha: Annotated[float, typer.Option(help="alpha of the LoRA.")] = RETRIEVER.alpha,
    head: Annotated[int, typer.Option(help="Tokens read at a text's start.")] = (
        RETRIEVER.window.head
    ),
    tail: Annotated[int, typer.Option(help="Tokens read at its end.")] = RETRIEVER.window.tail,
    temperature: Annotated[float, typer.Option(help="tau of the loss.")] = RETRIEVER.temperature,
    tasks_a_step: Annotated[int, typer.Option(help="Tasks in one step.")] = RETRIEVER.tasks,
    shrink: Annotated[
        float, typer.Option(help="Of the metric; 1 leaves the encoder's vectors alone.")
    ] = RETRIEVER.metric.shrink,
    share: Annotated[float, typer.Option(help="Of the hashed words in a vector; 0 is none.")] = (
        RETRIEVER.metric.share
    ),
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = RETRIEVER.schedule.steps,
    batch_rows: Annotated[int, typer.Option(help="Texts a step.")] = (
        RETRIEVER.schedule.batch_rows
    ),
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = (
        RETRIEVER.schedule.learning_rate
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights and draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Tune the sentence encoder, so that a prompt lies near its own adapter: a LoRA, a metric."""
    from ramole_core.retrieval.tuning import Window
    from ramole_core.settings import load_settings
    from ramole_core.training.progress import show_progress
    from ramole_core.training.retriever import measure_tasks, train_retriever
    from ramole_core.training.retriever_data import read_texts

    recipe = replace(
        RETRIEVER,
        rank=rank,
        alpha=alpha,
        window=Window(head, tail),
        temperature=temperature,
        tasks=tasks_a_step,
        metric=replace(RETRIEVER.metric, shrink=shrink, share=share),
        schedule=replace(
            RETRIEVER.schedule,
            steps=steps,
            batch_rows=batch_rows,
            learning_rate=learning_rate,
            seed=seed,
        ),
    )
    settings = load_settings()
    learnt = read_texts(data, tasks, rows=rows, seed=seed)
    others = read_texts(data, unseen, rows=rows, seed=seed)
    folder = out or settings.adapters_dir / "_retriever"
    with show_progress("retriever", quiet=as_json) as report:
        progress = train_retriever(
            recipe,
            texts=learnt.train,
            out_dir=folder,
            measure=lambda embed: measure_tasks(
                embed,
                examples={**learnt.examples, **others.examples},
                prompts={**learnt.dev, **others.dev},
                tuned=tuple(learnt.train),
            ),
            source=settings.encoder,
            data_dir=settings.data_dir,
            command=command_line(),
            report=report,
        )
    if as_json:
        answer = {"folder": str(folder), "tasks": list(learnt.train), "dev": progress.dev_losses}
        print(json.dumps({**answer, "seed": seed}))
