"""The command `keys`: add, list and remove the users' keys of a server."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ramole_core.api_keys import add_key, read_keys, remove_keys, today
from ramole_core.cli.opening import Json
from ramole_core.errors import RamoleError
from ramole_core.settings import load_settings
from ramole_core.terminal.console import write_json, write_table


def keys(
    what: Annotated[Literal["add", "list", "remove"], typer.Argument(help="What to do.")],
    user: Annotated[str | None, typer.Argument(help="Whose key.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="The file of hashes; unset: RAMOLE_KEYS_FILE.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="Days that a new key is good for; unset: for ever.")
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Adapters that it adds are everyone's, and stay.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Keys of users: add one (it is printed once), list whose there are, or remove a user's."""
    path = file or load_settings().keys_file
    if path is None:
        raise RamoleError("There is no file of keys; pass --file, or set RAMOLE_KEYS_FILE.")
    if what == "list":
        there = read_keys(path)
        if as_json:
            write_json({"keys": [asdict(key) for key in there]})
            return
        rows = [
            (key.user, key.made, key.until or "for ever", "operator" if key.operator else "")
            for key in there
        ]
        write_table(("user", "made", "good until", ""), rows)
    elif user is None:
        raise RamoleError(f"keys {what} needs the name of a user; write it behind it.")
    elif what == "add":
        key = add_key(path, user, today=today(), days=days, operator=operator)
        write_json({"user": user, "key": key}) if as_json else print(key)
    else:
        removed = remove_keys(path, user)
        told = {"user": user, "removed": removed}
        write_json(told) if as_json else print(f"Removed {removed} of {user}.")
