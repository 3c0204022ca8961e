"""`python -m ramole_core calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from ramole_core.terminal.console import progress_bar, say, write_json
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.options import Overwrite, output_folder


def calibrate(
    response: Annotated[
        bool, typer.Option(help="Read the adapters' responses where similarity is in doubt.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Its folder; by default DATA_DIR/trained/_base.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit where the base answers by itself, and where a follow-up keeps its adapters.

    For another encoder or base model, or a sample pool of your own. Uploads need no new fit.
    """
    from ramole_core.ramole import Ramole
    from ramole_core.settings import load_settings
    from ramole_core.training.calibrate import calibrate_for

    folder = output_folder(out or load_settings().trained_dir / "_base", overwrite=overwrite)
    with Ramole() as ramole:
        with progress_bar("Calibrating") as tell:
            made = calibrate_for(
                ramole, response=response, command=recorded_command("ramole_core"), tell=tell
            )
        file = made.save(folder)
    if as_json:
        write_json({"file": str(file), "facts": made.facts})
        return
    say(f"Adapters answer where the nearest is {made.alone.threshold:+.3f} ahead of the base.")
    say(f"Of prompts that were not used: {made.facts['percent_of_the_others_by_similarity']}.")
    say(f"Written to {file}.")
