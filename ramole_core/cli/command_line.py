"""The command line: all commands in one program, its errors as one line and an exit status.

Nothing heavy is imported before a command runs, so `--help` answers at once. An error that the user
can put right is one line on standard error and exit status 2.
"""

import logging
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from ramole_core import __version__
from ramole_core.cli.answers import generate, retrieve, trace
from ramole_core.cli.batch import batch
from ramole_core.cli.chat import chat
from ramole_core.cli.doctor import doctor
from ramole_core.cli.keys import keys
from ramole_core.cli.laboratory import page, register
from ramole_core.cli.listing import hub, methods, mixes
from ramole_core.cli.opening import REMOTE, chosen_url
from ramole_core.cli.pool import add, list_, remove
from ramole_core.errors import RamoleError
from ramole_core.export.command import merge
from ramole_core.serving.running import serve
from ramole_core.terminal.console import say
from ramole_core.training.calibrate_command import calibrate
from ramole_core.training.command import train_app

PROGRAM = "python -m ramole_core"
CONSOLE = "ramole"
"""Name of the installed command."""

app = typer.Typer(
    name="ramole",
    help="A pool of LoRA adapters as one model: found per prompt, mixed per token.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback()
def program(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="Ask the server there, else that of RAMOLE_URL; one that runs on this data "
            "folder is found by itself.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A pool of LoRA adapters as one model: found per prompt, mixed per token."""
    chosen_url.set(url)
    if url is not None and context.invoked_subcommand not in REMOTE:
        able = f"{', '.join(REMOTE[:-1])} and {REMOTE[-1]} can"
        raise RamoleError(
            f"{context.invoked_subcommand} works on this machine's files and cannot be asked "
            f"of a server; leave --url out. {able}."
        )


app.add_typer(train_app, name="train")
for command in (
    *(batch, calibrate, doctor, hub, keys, list_, add, remove, merge, retrieve, generate, chat),
    *(methods, mixes, page, serve, trace),
):
    app.command(command.__name__.rstrip("_"))(command)
register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run(app, CONSOLE if Path(sys.argv[0]).name == CONSOLE else PROGRAM, arguments)


def run(program: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of a program, `sys.argv` unless `arguments` are given; returns the exit
    status: 0, 2 for what a user can correct, 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without UTF-8 must not end an answer
            stream.reconfigure(errors="replace")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses a package we do not want
    command = typer.main.get_command(program)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = int(command.main(words, name, standalone_mode=False) or 0)
        if status == 130:
            say("Stopped.")
        return status
    except typer.TyperException as error:
        if problem := error.format_message():  # empty where the help itself was printed
            context = getattr(error, "ctx", None)
            say(f"{problem} See {context.command_path if context else name} --help.")
    except (RamoleError, typer.Abort) as error:
        say(str(error) or "Standard input ended too early.")
    except OSError as error:
        say(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
    return 2
