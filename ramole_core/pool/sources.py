"""Copy an adapter from its source: a folder, a zip, files dropped together."""

import os
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.files import PICKLES, USED, choose, copy_stream, pickled
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.unzip import copy_zip

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a .zip, or the files dropped together."""


@dataclass(frozen=True)
class Found:
    """The contents of a source."""

    name: str | None
    """The name that the source suggests."""
    notes: list[str] = field(default_factory=list)


def copy_source(source: Source, into: Path, *, limits: Limits) -> Found:
    """Copy the adapter's files into the folder `into`; raises AdapterRefused."""
    if not isinstance(source, str | os.PathLike):
        if not source:
            raise AdapterRefused(
                f"No file was given; expected {WEIGHTS} and {CONFIG}, or one .zip of them."
            )
        paths = [Path(path) for path in source]
        if len(paths) > 1:
            return Found(None, _copy(files_dropped(paths), into, limits=limits))
        source = paths[0]
    path = Path(source)
    if not path.exists():
        raise AdapterRefused(
            f"There is nothing at {str(path)!r}; give a folder, a .zip, the two files {WEIGHTS} "
            f"and {CONFIG}, or hf:owner/name."
        )
    if path.is_dir():
        name, files = files_of_folder(path)
        return Found(name, _copy(files, into, limits=limits))
    if path.suffix.lower() in PICKLES:
        raise pickled([path.name])
    if zipfile.is_zipfile(path) or _begins_as_zip(path):
        return Found(path.stem, copy_zip(path, into, limits=limits))
    if path.name in USED:
        other = CONFIG if path.name == WEIGHTS else WEIGHTS
        raise AdapterRefused(
            f"{path.name} came alone; {other} is missing: drop {WEIGHTS} and {CONFIG} together."
        )
    raise AdapterRefused(
        f"{path.name} is neither a folder nor a zip; give {WEIGHTS} and {CONFIG} together, or a "
        ".zip of them."
    )


def _begins_as_zip(path: Path) -> bool:
    """Whether it is a zip whose end may be missing."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def files_of_folder(folder: Path) -> tuple[str, dict[str, Path]]:
    """An adapter's name and its files by name: the folder's, or those of the only folder in it."""
    entries = _list(folder)
    name = folder.resolve().name
    if WEIGHTS not in entries:
        folders = [path for path in entries.values() if path.is_dir()]
        inner = [path for path in folders if (path / WEIGHTS).exists()]
        if len(inner) == 1 and len(folders) == 1:
            entries, name = _list(inner[0]), inner[0].name
    return name, {name: path for name, path in entries.items() if not path.is_dir()}


def _list(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


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


def _copy(files: dict[str, Path], into: Path, *, limits: Limits) -> list[str]:
    used, notes = choose(files)
    left = limits.bytes
    for name in used:
        with open_plain(files[name]) as file:
            left -= copy_stream(file.read, into / name, left=left, limits=limits)
    return notes


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
