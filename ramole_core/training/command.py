"""`python -m ramole_core train adapter|method|router|retriever`: the training commands.

Each prints its dev losses as it goes, can be killed and started again with the same words, and with
`--json` ends with one JSON object on standard output.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ramole_core.terminal.console import write_json
from ramole_core.training.method_command import method, router
from ramole_core.training.options import (
    Overwrite,
    Pace,
    output_folder,
    read_layers,
    read_modules,
    spread,
)
from ramole_core.training.recipe import AdapterRecipe, Schedule
from ramole_core.training.retriever_command import retriever

WEIGHTS = "adapter_model.safetensors"
train_app = typer.Typer(
    help="Train an adapter on your own rows, a method's weights over adapters, or the retriever.",
    no_args_is_help=True,
    add_completion=False,
)


@train_app.callback()
def group() -> None:
    """Train an adapter on your own rows, a method's weights over adapters, or the retriever."""


@dataclass(frozen=True)
class LoraOptions:
    """The LoRA of an adapter; each field is an option."""

    rank: Annotated[int, typer.Option(help="r of the LoRA.")] = 8
    alpha: Annotated[float | None, typer.Option(help="alpha; by default twice the rank.")] = None
    modules: Annotated[str, typer.Option(help="Linear modules, or `attention`, `mlp`.")] = (
        "attention,mlp"
    )
    layers: Annotated[str | None, typer.Option(help="Layers, such as 10-29; all if unset.")] = None
    rslora: Annotated[bool, typer.Option(help="Scale by alpha/sqrt(r), not alpha/r.")] = False

    def recipe(self, name: str, schedule: Schedule) -> AdapterRecipe:
        """The adapter's recipe."""
        return AdapterRecipe(
            name,
            rank=self.rank,
            alpha=2.0 * self.rank if self.alpha is None else self.alpha,
            modules=read_modules(self.modules),
            layers=read_layers(self.layers),
            rslora=self.rslora,
            schedule=schedule,
        )


@dataclass(frozen=True)
class CardOptions:
    """An adapter's card; each field is an option."""

    examples: Annotated[
        Path | None,
        typer.Option(
            help='Example inputs, {"text": ...} a line; else those there, of --start, or data.'
        ),
    ] = None
    description: Annotated[
        Path | None,
        typer.Option(help="A text file for the model card: what the adapter does; else --start's."),
    ] = None
    licence: Annotated[
        str | None, typer.Option(help="The licence that the data asks for; else --start's.")
    ] = None


@train_app.command()
@spread()
def adapter(
    data: Annotated[
        Path, typer.Option(help='A .jsonl file of {"inputs", "targets"} rows, or a task folder.')
    ],
    out: Annotated[Path, typer.Option(help="The adapter's folder, made when it is missing.")],
    lora: LoraOptions,
    schedule: Schedule,
    pace: Pace,
    card: CardOptions,
    name: Annotated[str | None, typer.Option(help="Its name; by default the data's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="An adapter's folder, whose weights it begins with.")
    ] = None,
    quantization: Annotated[
        Literal["nf4", "int4", "none"] | None,
        typer.Option(help="Of the base it is trained on; by default what the settings serve."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a LoRA adapter on the base as it is served; write a folder that the pool accepts."""
    from ramole_core.base.hub_name import hub_name
    from ramole_core.base.shapes import read_shapes
    from ramole_core.pool import write_manifest
    from ramole_core.pool.card import VECTOR_EXAMPLES
    from ramole_core.pool.examples_and_readme import read_example_file, write_examples
    from ramole_core.text_file import read_text
    from ramole_core.training import sources
    from ramole_core.training.adapter import train_adapter
    from ramole_core.training.card import (
        Provenance,
        draw_examples,
        read_record,
        write_card,
        write_record,
    )
    from ramole_core.training.progress import shown_run

    recipe = lora.recipe(name or data.stem, pace.of(schedule))
    if (out / WEIGHTS).is_file():  # examples of its own may lie there already
        output_folder(out, overwrite=overwrite)
    text = read_text(card.description) if card.description else ""
    there = [one / "examples.jsonl" for one in (out, start) if one]
    source = card.examples or next((one for one in there if one.is_file()), None)
    examples = read_example_file(source)[:VECTOR_EXAMPLES] if source else []
    began = read_record(start) if start else None
    earlier = began or {}
    base = sources.load_configured_base(quantization)
    with shown_run(recipe.name, out, pace) as run:
        origin = Provenance(
            base_name=hub_name(base.name),
            base_checksum=base.checksum,
            quantization=base.quantization,
            dtype=str(base.dtype).removeprefix("torch."),
            command=run.command,
            licence=card.licence or earlier.get("licence", "other"),
            description=text or earlier.get("description", f"A LoRA adapter for {recipe.name}."),
            start=began,
        )

        def finish(folder, task, counts, progress) -> None:
            write_record(folder, recipe, task, progress, counts=counts, origin=origin)
            write_examples(folder, examples or draw_examples(task, seed=schedule.seed))
            write_card(folder)
            write_manifest(folder, name=recipe.name, shapes=read_shapes(base.folder))

        progress = train_adapter(recipe, data=data, base=base, run=run, start=start, finish=finish)
    if pace.as_json:
        answer = {"name": recipe.name, "folder": str(out), "dev_losses": progress.dev_losses}
        write_json({**answer, "seed": schedule.seed, "base_checksum": base.checksum})


for _command in (method, router, retriever):
    train_app.command()(_command)
