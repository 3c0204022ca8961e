"""The commands whose code lies beside the core: `page`, and of `lab/` `evaluate` and `benchmark`.

A container or an installed package has no `lab/`; there both commands raise an error.
"""

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import typer

from ramole_core.cli.opening import Json
from ramole_core.errors import RamoleError

ANY = {"ignore_unknown_options": True, "allow_extra_args": True}


def register(app: typer.Typer) -> None:
    """Add both commands to the program."""
    try:
        from lab.benchmarks.command import benchmark
        from lab.evaluation.command import evaluate
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lab":
            raise
        for name in ("benchmark", "evaluate"):
            app.command(name, context_settings=ANY)(_missing(name))
        return
    app.command("benchmark")(_with_libraries(benchmark))
    app.command("evaluate")(_with_libraries(evaluate))


def _with_libraries(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with one sentence where a library that measuring needs is not installed."""

    @wraps(command)
    def run(**said: Any) -> None:
        try:
            command(**said)
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library in ("lab", "ramole_core"):
                raise
            raise RamoleError(
                f"The command {command.__name__} needs {library}, which is not installed; run "
                "`pip install 'ramole[lab]'`, or `make setup` in a clone."
            ) from None

    return run


def _missing(name: str) -> Callable[[], None]:
    def refuse() -> None:
        raise RamoleError(
            f"The command {name} needs the folder lab/ of RAMoLE's repository, which is not here; "
            "clone the repository and run the command there."
        )

    refuse.__doc__ = "Measure; only in a clone of the repository, which has the folder lab/."
    return refuse


PAGE = "ui.program"


def page(as_json: Json = False) -> None:
    """The page on http://127.0.0.1:7860, until Ctrl-C; the model loads behind it.

    The variables RAMOLE_* set the port, the base model and all else.
    """
    import_module(PAGE).run(as_json=as_json)
