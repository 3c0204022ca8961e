"""`python -m ramole_core train adapter|router|retriever`: the training commands.

Each prints its dev losses as it goes, can be killed and started again with the same words, and with
`--json` ends with one JSON object on standard output.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.training.command_words import command_line, read_layers, read_modules
from ramole_core.training.recipe import AdapterRecipe, RouterRecipe, Schedule
from ramole_core.training.retriever_recipe import RetrieverRecipe

RETRIEVER = RetrieverRecipe()

train_app = typer.Typer(
    help="Train an adapter on your own rows, a router over a few adapters, or the retriever.",
    no_args_is_help=True,
    add_completion=False,
)


@train_app.callback()
def group() -> None:
    """Train an adapter on your own rows, a router over a few adapters, or the retriever."""


Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]


@train_app.command("adapter")
def adapter(
    data: Annotated[
        Path, typer.Option(help='A .jsonl file of {"inputs", "targets"} rows, or a task folder.')
    ],
    out: Annotated[Path, typer.Option(help="The adapter's folder, made when it is missing.")],
    name: Annotated[str | None, typer.Option(help="Its name; by default the data's.")] = None,
    rank: Annotated[int, typer.Option(help="r of the LoRA.")] = 8,
    alpha: Annotated[float | None, typer.Option(help="alpha; by default twice the rank.")] = None,
    modules: Annotated[str, typer.Option(help="Linear modules, or `attention`, `mlp`.")] = (
        "attention,mlp"
    ),
    layers: Annotated[str | None, typer.Option(help="Layers, such as 10-29; all if unset.")] = None,
    rslora: Annotated[bool, typer.Option(help="Scale by alpha/sqrt(r), not alpha/r.")] = False,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 80,
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1.5e-3,
    max_tokens: Annotated[int, typer.Option(help="Longer rows are left out.")] = 224,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    examples: Annotated[
        Path | None,
        typer.Option(help='Example inputs, {"text": ...} a line; else those there, or data.'),
    ] = None,
    description: Annotated[
        Path | None, typer.Option(help="A text file for the model card: what the adapter does.")
    ] = None,
    licence: Annotated[str, typer.Option(help="The licence that the data asks for.")] = "other",
    as_json: Json = False,
) -> None:
    """Train a LoRA adapter on the 4-bit base and write a folder that the pool accepts."""
    from ramole_core.base.shapes import read_shapes
    from ramole_core.pool import write_manifest
    from ramole_core.training.adapter import hub_name, train_adapter
    from ramole_core.training.card import (
        Provenance,
        read_examples,
        write_card,
        write_examples,
        write_record,
    )
    from ramole_core.training.progress import show_progress

    recipe = AdapterRecipe(
        name or data.stem,
        rank=rank,
        alpha=2.0 * rank if alpha is None else alpha,
        modules=read_modules(modules),
        layers=read_layers(layers),
        rslora=rslora,
        schedule=Schedule(
            steps=steps,
            batch_rows=batch_rows,
            learning_rate=learning_rate,
            max_tokens=max_tokens,
            seed=seed,
        ),
    )
    base = load_configured_base()
    text = description.read_text(encoding="utf-8") if description else ""
    origin = Provenance(
        base_name=hub_name(base.name),
        base_checksum=base.checksum,
        quantization=base.quantization,
        command=command_line(),
        licence=licence,
        description=text or f"A LoRA adapter for {recipe.name}.",
    )

    def finish(folder, task, progress) -> None:
        write_record(folder, recipe, task, progress, origin=origin)
        kept = folder / "examples.jsonl"
        source = examples or (kept if kept.is_file() else None)
        write_examples(folder, read_examples(source, task, seed=seed))
        write_card(folder)
        write_manifest(folder, name=recipe.name, shapes=read_shapes(base.folder))

    with show_progress(recipe.name, quiet=as_json) as report:
        progress = train_adapter(
            recipe, data=data, out_dir=out, base=base, report=report, finish=finish
        )
    if as_json:
        answer = {"name": recipe.name, "folder": str(out), "dev_losses": progress.dev_losses}
        print(json.dumps({**answer, "seed": seed, "base_checksum": base.checksum}))


@train_app.command("router")
def router(
    data: Annotated[
        Path, typer.Option(help="A folder of task folders, each named after its adapter.")
    ],
    adapters: Annotated[str, typer.Option(help="Adapters to train on, comma separated.")],
    out: Annotated[
        Path | None, typer.Option(help="The router's folder; by default the sample pool's.")
    ] = None,
    rank: Annotated[int, typer.Option(help="s of the router.")] = 6,
    alpha: Annotated[float, typer.Option(help="alpha of the router.")] = 12.0,
    dropout: Annotated[float, typer.Option(help="Chance that a whole LoRA is left out.")] = 0.5,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 100,
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 12,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    max_tokens: Annotated[int, typer.Option(help="Longer rows are left out.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and dropout.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a router over adapters of the pool; base and adapters stay as they are."""
    from ramole_core.base.checksum import sha256
    from ramole_core.base.shapes import read_shapes
    from ramole_core.settings import load_settings
    from ramole_core.training.pool_loras import read_loras
    from ramole_core.training.progress import show_progress
    from ramole_core.training.router import train_router
    from ramole_core.training.rows import read_task

    recipe = RouterRecipe(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        schedule=Schedule(
            steps=steps,
            batch_rows=batch_rows,
            learning_rate=learning_rate,
            max_tokens=max_tokens,
            seed=seed,
            checkpoint_every=10,
        ),
    )
    names = [name.strip() for name in adapters.split(",") if name.strip()]
    settings = load_settings()
    tasks = [read_task(data / name) for name in names]
    base = load_configured_base()
    shapes = read_shapes(base.folder)
    folder = out or settings.adapters_dir / "_router"
    with show_progress("router", quiet=as_json) as report:
        progress = train_router(
            recipe,
            loras=read_loras(names, settings=settings, shapes=shapes),
            tasks=tasks,
            base=base,
            shapes=shapes,
            out_dir=folder,
            command=command_line(),
            report=report,
        )
    if as_json:
        answer = {"folder": str(folder), "adapters": names, "dev_losses": progress.dev_losses}
        sums = {
            "base_checksum": base.checksum,
            "router_checksum": sha256(folder / "router.safetensors"),
        }
        print(json.dumps({**answer, "seed": seed, **sums}))


@train_app.command("retriever")
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


def load_configured_base():
    """The base model that the settings name, its download shown on standard error."""
    from ramole_core.base.model import load_base
    from ramole_core.settings import load_settings

    settings = load_settings()
    return load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device=settings.device,
    )
