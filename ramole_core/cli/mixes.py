"""The command `mixes`: list kept mixes, and remove one."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramole_core.cli.opening import Json, Owner, opened
from ramole_core.terminal.console import write_json, write_table


def mixes(
    remove: Annotated[str | None, typer.Option(help="Forget the mix of this name.")] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """The mixes that were kept: adapters with the weights that were found on examples."""
    with opened() as ramole:
        if remove is not None:
            ramole.remove_mix(remove, owner)
        found = ramole.mixes(owner)
    if as_json:
        told: dict[str, object] = {"mixes": [asdict(mix) for mix in found]}
        write_json(told | ({"removed": remove} if remove else {}))
    elif remove is not None:
        print(f"Removed {remove}.")
    else:
        rows = [
            (mix.name, mix.method, f"{mix.loss:.3f}", _weights(mix.adapters, mix.weights))
            for mix in found
        ]
        write_table(("name", "method", "loss", "weights"), rows)


def _weights(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))
