"""`python -m ramole_core merge`: several adapters of the pool, or of folders, written as one."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.methods import read_values
from ramole_core.terminal.console import progress_bar, write_json

if TYPE_CHECKING:
    from ramole_core.export.merge import Merged


def merge(
    method: Annotated[str, typer.Argument(help="lego, ties, dare, fusion, mixture, ...")],
    adapter: Annotated[
        list[str], typer.Argument(help="Names in the pool, or paths of adapter folders or zips.")
    ],
    out: Annotated[Path | None, typer.Option(help="The new adapter's folder, for PEFT.")] = None,
    gguf: Annotated[Path | None, typer.Option(help="A new GGUF file, for llama.cpp.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="One for each adapter, such as 0.7,-0.2; replace the method's."),
    ] = None,
    rank: Annotated[
        int, typer.Option(min=0, help="Largest rank of the new adapter; 0: what comes out.")
    ] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the method's own, as `methods` lists them; repeat."),
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Whose uploads count beside the shared ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Merge adapters into one, by a method or fixed weights; files for PEFT and llama.cpp."""
    from ramole_core.whole_file import refuse_taken

    given = None if weights is None else read_weights(weights)
    options = read_values(option) if option else None
    if out is None and gguf is None:
        raise RamoleError(
            "There is no place to write to; name a folder with --out, or --gguf FILE."
        )
    for place in (out, gguf):
        if place is not None:
            refuse_taken(place)

    from ramole_core.base.fetch import fetch_base
    from ramole_core.base.files import weights_checksum
    from ramole_core.base.shapes import read_shapes
    from ramole_core.composition.trained import WeightsFolder
    from ramole_core.export.gguf_file import write_gguf
    from ramole_core.export.merge import merge_adapters
    from ramole_core.export.peft_folder import write_peft
    from ramole_core.export.sources import read_sources
    from ramole_core.settings import load_settings

    settings = load_settings()
    with progress_bar("Merging") as tell:
        base = fetch_base(settings.base_model, data_dir=settings.data_dir, progress=tell)
        shapes = read_shapes(base)
        tell("reading the adapters", 0.0)
        sources = read_sources(adapter, settings=settings, shapes=shapes, owner=owner)
        merged = merge_adapters(
            sources,
            method,
            shapes=shapes,
            trained=WeightsFolder(settings.adapters_dir, own=settings.trained_dir),
            weights=given,
            options=options,
            rank=rank,
            tell=tell,
        )
        said = {source.card.base_model for source in sources}
        named = next(iter(said)) if len(said) == 1 else None
        if gguf is not None:
            write_gguf(merged.loras, gguf, base=base, name=gguf.stem)
        if out is not None:
            try:
                write_peft(merged, out, shapes=shapes, base_name=named or settings.base_model)
            except BaseException:
                if gguf is not None:
                    gguf.unlink(missing_ok=True)
                raise
    if as_json:
        checksum = weights_checksum(base, data_dir=settings.data_dir)
        origin = {"base_model": settings.base_model, "base_checksum": checksum}
        write_json(record_of(merged, out, gguf) | origin)
    else:
        print(sentence_of(merged, out, gguf))


def read_weights(words: str) -> tuple[float, ...]:
    """`0.7,-0.2` as numbers; raises RamoleError."""
    try:
        found = tuple(float(word) for word in words.split(","))
        if all(map(math.isfinite, found)):
            return found
    except ValueError:
        pass
    raise RamoleError(f"--weights {words} is not understood; write numbers such as 0.7,-0.2.")


def record_of(merged: "Merged", out: Path | None, gguf: Path | None) -> dict[str, object]:
    """The output of `--json`."""
    return {
        "method": merged.method,
        "adapters": [source.name for source in merged.sources],
        "checksums": [source.card.content for source in merged.sources],
        "weights": merged.weights,
        "options": dict(merged.options),
        "rank": merged.rank,
        "modules": len(merged.loras),
        "exact": merged.exact,
        "error": asdict(merged.error),
        "out": out and str(out),
        "gguf": gguf and str(gguf),
    }


def sentence_of(merged: "Merged", out: Path | None, gguf: Path | None) -> str:
    """A sentence on what was written, and its distance from the mixture of the same weights."""
    places = " and ".join(str(place) for place in (out, gguf) if place is not None)
    what = f"Wrote {places}: rank {merged.rank}, {len(merged.loras)} modules"
    if merged.exact:
        return f"{what}; exactly the mixture."
    error = merged.error
    lost = ", ".join(f"{name} {part:.1%}" for name, part in error.by_adapter.items())
    return (
        f"{what}; {error.overall:.1%} away from the mixture of the same weights, "
        f"{error.worst:.1%} in the worst module ({error.worst_module})"
        + (f"; left out of {lost}." if lost else ".")
    )
