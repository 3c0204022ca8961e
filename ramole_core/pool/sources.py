"""Stage an adapter from its source: a folder, a zip, files dropped together, or the Hub."""

import os
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ramole_core.base.files import sha256
from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.examples_and_readme import (
    README,
    check_examples,
    parse_readme,
    read_examples,
    write_examples,
)
from ramole_core.pool.files import PICKLES, USED, SourceInfo, copy_chosen, copy_zip, pickled
from ramole_core.pool.hub import PREFIX, copy_hub
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.names import clean_name

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a .zip, the files dropped together, or hf:owner/name."""


def stage_source(
    source: Source,
    into: Path,
    *,
    examples: Sequence[str] | None,
    limits: Limits,
    use_token: bool,
) -> tuple[str, list[str], list[str]]:
    """Copy `source` into the empty folder `into`; raises AdapterRefused. Returns a name, from the
    source if it has one, else from the weights' hash; notes; and notes on examples.

    `examples` take the place of those that came with the files. `use_token`: whether the
    operator's Hub login may be used.
    """
    kept, example_notes = ([], []) if examples is None else check_examples(examples)
    if isinstance(source, str | os.PathLike) and str(source).startswith(PREFIX):
        suggested, notes = copy_hub(str(source), into, limits=limits, use_token=use_token)
    else:
        suggested, notes = copy_source(source, into, limits=limits)
    if (readme := into / README).exists():
        licence, description, problems = parse_readme(readme.read_bytes())
        notes = [*notes, *problems]
        if problems:
            readme.unlink()
    came, problems = read_examples(into)
    if examples is None:
        kept, example_notes = came, problems
    write_examples(into, kept)
    return _name(suggested, into), notes, example_notes


def _name(suggested: str | None, folder: Path) -> str:
    try:
        return clean_name((suggested or "").lstrip("_"))
    except AdapterRefused:
        return f"adapter-{sha256(folder / WEIGHTS)[:8]}"


def copy_source(source: Source, into: Path, *, limits: Limits) -> SourceInfo:
    """Copy the adapter's files into the folder `into`; raises AdapterRefused."""
    if not isinstance(source, str | os.PathLike):
        if not source:
            raise AdapterRefused(
                f"No file was given; expected {WEIGHTS} and {CONFIG}, or one .zip of them."
            )
        paths = [Path(path) for path in source]
        if len(paths) > 1:
            return None, copy_chosen(files_dropped(paths), open_plain, into, limits=limits)
        source = paths[0]
    path = Path(source)
    if not path.exists():
        raise AdapterRefused(
            f"There is nothing at {str(path)!r}; give a folder, a .zip, the two files {WEIGHTS} "
            f"and {CONFIG}, or hf:owner/name."
        )
    if path.is_dir():
        name, files = files_of_folder(path)
        return name, copy_chosen(files, open_plain, into, limits=limits)
    if path.suffix.lower() in PICKLES:
        raise pickled([path.name])
    with open_plain(path) as file:
        begins_as_zip = file.read(4) == b"PK\x03\x04"  # its end may be missing
    if begins_as_zip or zipfile.is_zipfile(path):
        return path.stem, copy_zip(path, into, limits=limits)
    if path.name in USED:
        other = CONFIG if path.name == WEIGHTS else WEIGHTS
        raise AdapterRefused(
            f"{path.name} came alone; {other} is missing: drop {WEIGHTS} and {CONFIG} together."
        )
    raise AdapterRefused(
        f"{path.name} is neither a folder nor a zip; give {WEIGHTS} and {CONFIG} together, or a "
        ".zip of them."
    )


def files_of_folder(folder: Path) -> tuple[str, dict[str, Path]]:
    """An adapter's name and its files by name: the folder's, or those of the only folder in it."""
    name = folder.resolve().name
    folders = [path for path in folder.iterdir() if path.is_dir()]
    if len(folders) == 1 and not (folder / WEIGHTS).exists() and (folders[0] / WEIGHTS).exists():
        folder, name = folders[0], folders[0].name
    return name, {path.name: path for path in folder.iterdir() if not path.is_dir()}


def files_dropped(paths: Sequence[Path]) -> dict[str, Path]:
    """Files that came together, by name; raises AdapterRefused for what is none or comes twice."""
    files: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise AdapterRefused(
                f"There is no file at {str(path)!r}; drop {WEIGHTS} and {CONFIG} together."
            )
        if path.name in files:
            raise AdapterRefused(
                f"Two files are named {path.name}; drop one adapter at a time, {WEIGHTS} and "
                f"{CONFIG}."
            )
        files[path.name] = path
    return files


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read; raises AdapterRefused for a pipe, a device or a lost link."""
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
        file = open(path, "rb") if plain else None
    except OSError as error:
        what = "a link that leads nowhere" if path.is_symlink() else "no file that can be read"
        raise AdapterRefused(
            f"{path.name} is {what} ({error.strerror}); give the file itself."
        ) from None
    if file is None:
        raise AdapterRefused(f"{path.name} is not a plain file; give the file itself.")
    return file
