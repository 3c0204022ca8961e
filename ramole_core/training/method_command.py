"""`python -m ramole_core train method NAME`, and `train router`, which trains `ramole`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Value, find_row, read_values
from ramole_core.terminal.console import write_json
from ramole_core.training.options import Overwrite, Pace, output_folder, read_names, spread
from ramole_core.training.recipe import MethodRecipe, Schedule

SCHEDULE = replace(MethodRecipe.schedule, max_tokens=160)


@dataclass(frozen=True)
class DataOptions:
    """A method's training data and output folder; each field is an option."""

    data: Annotated[
        Path, typer.Option(help="A folder of task folders, each named after its adapter.")
    ]
    adapters: Annotated[
        str, typer.Option(help="Adapters to train on, comma separated; or data sets.")
    ]
    out: Annotated[
        Path | None, typer.Option(help="The weights' folder; by default DATA_DIR/trained/_NAME.")
    ] = None
    start: Annotated[
        Path | None,
        typer.Option(help="The method's weights to begin with; adapters may have been added."),
    ] = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class MixingOptions:
    """The adapters that a row is mixed from; each field is an option."""

    dropout: Annotated[
        float | None,
        typer.Option(
            help="Chance that a whole LoRA is left out, where none are retrieved; by default 0.5, "
            "and 0 of a fixed pool."
        ),
    ] = None
    retrieved: Annotated[
        int,
        typer.Option(
            help="Adapters that a row is mixed from, found for it; 0, a fixed pool, few: all."
        ),
    ] = 3
    masked: Annotated[float, typer.Option(help="Chance that a row's own adapter is not found.")] = (
        0.5
    )


def trainable() -> str:
    """Each trainable method, with its settings."""
    return "; ".join(
        f"{row.name}: {', '.join(map(str, row.training))}" for row in METHOD_LIST if row.training
    )


@spread()
def method(
    name: Annotated[str, typer.Argument(help="The method.")],
    place: DataOptions,
    mixing: MixingOptions,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"NAME=VALUE of the method's own. {trainable()}."),
    ] = None,
    schedule: Schedule = SCHEDULE,
    *,
    pace: Pace,
) -> None:
    """Train a method's own weights over adapters of the pool, which stay as they are; or measure
    the table that it reads."""
    _train(name, read_values(setting or []), place, mixing, pace.of(schedule), pace=pace)


@spread()
def router(
    place: DataOptions,
    mixing: MixingOptions,
    rank: Annotated[int, typer.Option(help="s of the router.")] = 6,
    alpha: Annotated[float, typer.Option(help="alpha of the router.")] = 12.0,
    schedule: Schedule = SCHEDULE,
    *,
    pace: Pace,
) -> None:
    """Train the router of `ramole` over adapters of the pool, which stay as they are."""
    values: dict[str, Value] = {"rank": rank, "alpha": alpha}
    _train("ramole", values, place, mixing, pace.of(schedule), pace=pace)


def read_adapters(words: str) -> list[str]:
    """The names of `--adapters`. Raises RamoleError where none or one twice is among them."""
    names = read_names(words)
    if not names:
        raise RamoleError(
            "--adapters names none; give the names of the adapters to train on, comma separated."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RamoleError(f"--adapters names {', '.join(twice)} twice or more; name each once.")
    return names


def _train(
    name: str,
    values: dict[str, Value],
    place: DataOptions,
    mixing: MixingOptions,
    schedule: Schedule,
    *,
    pace: Pace,
) -> None:
    from ramole_core.base.shapes import read_shapes
    from ramole_core.composition import find_method
    from ramole_core.composition.trained import checksum_of, load_trained
    from ramole_core.retrieval import Encoder
    from ramole_core.settings import load_settings
    from ramole_core.training import sources
    from ramole_core.training.material import Material
    from ramole_core.training.method import check_start, train_method
    from ramole_core.training.progress import shown_run
    from ramole_core.training.rows import read_task
    from ramole_core.training.sampled_adapters import nearest_of
    from ramole_core.training.sources import PoolLoras, read_loras

    names, kind = read_adapters(place.adapters), find_method(name)
    if place.start:
        check_start(name)
    found_for_each = len(names) - (mixing.masked > 0)
    takes_all = kind.fixed or kind.experts(2) < 2 or found_for_each < 2
    retrieved = 0 if takes_all else min(mixing.retrieved, found_for_each)
    dropout = (0.0 if kind.fixed else 0.5) if mixing.dropout is None else mixing.dropout
    recipe = MethodRecipe(name, values, dropout, retrieved, mixing.masked, schedule)
    settings, row = load_settings(), find_row(name)
    folder = output_folder(
        place.out or settings.trained_dir / row.weights, overwrite=place.overwrite
    )
    tasks = [read_task(place.data / name) for name in names]
    base = sources.load_configured_base()
    shapes = read_shapes(base.folder)
    found = PoolLoras({}, {}, ())  # of a method that trains its own
    if not kind.brings:
        found = read_loras(names, settings=settings, shapes=shapes)
    near = None
    if recipe.retrieved and not kind.measures:
        tuned = settings.trained("_retriever")
        encoder = Encoder(settings.encoder, data_dir=settings.data_dir, adapter=tuned)
        near = nearest_of(found.cards, encoder)
    with shown_run(recipe.method, folder, pace) as run:
        start = load_trained(place.start, row) if place.start else None
        given = Material(found.loras, tasks, base, shapes, found.checksums, near, start)
        progress = train_method(recipe, given, run)
    if pace.as_json:
        checksum = checksum_of(folder, row)
        answer = {
            "method": name,
            "folder": str(folder),
            "adapters": names,
            "dev_losses": progress.dev_losses,
            "seed": schedule.seed,
            "base_checksum": base.checksum,
            "weights_checksum": checksum,
        }
        if name == "ramole":
            answer["router_checksum"] = checksum
        write_json(answer)
