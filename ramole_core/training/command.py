"""`python -m ramole_core train adapter|method|router|retriever`: the training commands.

Each prints its dev losses as it goes, can be killed and started again with the same words, and with
`--json` ends with one JSON object on standard output.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.training.command_words import (
    Json,
    command_line,
    read_layers,
    read_modules,
)
from ramole_core.training.method_command import method, router
from ramole_core.training.recipe import AdapterRecipe, Schedule
from ramole_core.training.retriever_command import retriever

train_app = typer.Typer(
    help="Train an adapter on your own rows, a method's weights over adapters, or the retriever.",
    no_args_is_help=True,
    add_completion=False,
)


@train_app.callback()
def group() -> None:
    """Train an adapter on your own rows, a method's weights over adapters, or the retriever."""


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
    from ramole_core.base.hub_name import hub_name
    from ramole_core.base.shapes import read_shapes
    from ramole_core.pool import write_manifest
    from ramole_core.training.adapter import train_adapter
    from ramole_core.training.card import (
        Provenance,
        read_examples,
        write_card,
        write_examples,
        write_record,
    )
    from ramole_core.training.configured_base import load_configured_base
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


for _command in (method, router, retriever):
    train_app.command(_command.__name__)(_command)
