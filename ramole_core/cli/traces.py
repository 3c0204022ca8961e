"""The command `trace`: check that a file is a trace, and describe it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.cli.opening import Json
from ramole_core.terminal.console import write_json


def trace(
    files: Annotated[list[Path], typer.Argument(help="Trace files, .json or .npz.")],
    as_json: Json = False,
) -> None:
    """Check trace files against their schema, `ramole_core/trace.schema.json`."""
    from ramole_core.trace_check import check_trace

    found = {str(file): check_trace(file) for file in files}
    if as_json:
        write_json({"traces": {name: asdict(facts) for name, facts in found.items()}})
        return
    for name, facts in found.items():
        print(
            f"{name}: a trace, version {facts.version}, of {facts.tokens} tokens "
            f"({facts.prompt_length} of the prompt), {facts.layers} layers, {facts.modules} "
            f"modules; adapters: {', '.join(facts.adapters) or 'none'}."
        )
