"""A request's fields as options of a command, derived from the schema of `Request`."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ramole_core.methods import METHOD_LIST, read_values
from ramole_core.request import DEFAULTS, FIELDS
from ramole_core.request_fields import LISTS, Takes
from ramole_core.terminal.console import read_pairs, read_turns

FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "history": (read_turns, 'Earlier turns: a JSON list such as [["Hello", "Hi.", ["adapter"]]].'),
    "examples": (
        read_pairs,
        'Pairs to find the weights on (lorahub), one a line: {"inputs": ..., "targets": ...}, or '
        "input => target.",
    ),
}
"""Fields that are nested lists: a file, its reader, and its help."""
TYPES = {"whole": int, "number": float, "truth": bool}


def asks(*left: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a request but `left`; its parameter `asked` gets a
    mapping of those that are set."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = [n for n, takes in FIELDS.items() if takes.option != "" and n not in left]
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(command).parameters.values():
            parameters += [_option(name) for name in names] if one.name == "asked" else [one]

        def gather(given: dict[str, object]) -> dict[str, object]:
            asked = {name: _value(name, given.pop(name)) for name in names}
            return {**given, "asked": {k: v for k, v in asked.items() if v is not None}}

        return with_options(command, parameters, gather)

    return decorate


def with_options(
    command: Callable[..., None],
    parameters: Sequence[inspect.Parameter],
    gather: Callable[[dict[str, object]], dict[str, object]],
) -> Callable[..., None]:
    """The command with other parameters for typer; `gather` makes its own arguments of theirs."""
    flat = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]

    @wraps(command)
    def run(**given: object) -> None:
        command(**gather(given))

    vars(run).pop("__wrapped__")
    vars(run)["__signature__"] = inspect.Signature(flat)
    run.__annotations__ = {one.name: one.annotation for one in flat}
    return run


def _option(name: str) -> inspect.Parameter:
    takes, default = FIELDS[name], DEFAULTS[name]
    words = [f"--{(takes.option or name).replace('_', '-')}"]
    kind, help_text = _kind(takes), takes.help
    if name in FILES:
        kind, default, help_text = Path | None, None, FILES[name][1]
    elif takes.kind == "options":
        help_text = "NAME=VALUE of the method's own, as the command methods lists them; repeat."
    elif takes.kind in LISTS:
        default, help_text = None, f"{takes.help} Repeat for more."
    elif default is None:
        kind = Optional[kind]  # noqa: UP045  a type that is a value
    if takes.kind == "truth" and default is None:
        words = []  # with its opposite, --no-...
    if name == "k":
        words.append("-k")
    complete = (lambda: [row.name for row in METHOD_LIST]) if name == "method" else None
    option = typer.Option(*words, help=help_text, autocompletion=complete)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, option],
    )


def _kind(takes: Takes) -> Any:
    if takes.kind in LISTS or takes.kind == "options":
        return list[float] | None if takes.kind == "numbers" else list[str] | None
    return TYPES.get(takes.kind, str)


def _value(name: str, given: object) -> object:
    """The value of the option; None: not set."""
    if isinstance(given, Path):
        return FILES[name][0](given)
    if isinstance(given, list):
        return (read_values(given) if name == "options" else tuple(given)) if given else None
    return None if given == DEFAULTS[name] else given
