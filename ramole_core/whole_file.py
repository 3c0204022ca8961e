"""Atomic files and folders, after any kill and on a full disk."""

import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramole_core.errors import RamoleError

LEFT_SECONDS = 3600
"""A half-written file that has not changed for so long is of a process that was killed."""


@contextmanager
def replacing(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to, which replaces `path` at the end; on any error `path`
    stays as it was. Makes the folder. `synced`: a file that outlives a power cut.

    Several processes may do so at once. What earlier ones left when they were killed is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # gone meanwhile
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                _remove(left)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        if synced:
            with part.open("rb") as written:
                os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        with suppress(OSError):
            _remove(part)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that lock `path` waiting while it is read and replaced. Makes the
    folder. The lock is of a file beside it, which stays: `replacing` takes the file itself away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """As `replacing`, where nothing may exist yet. An error of the disk becomes a RamoleError."""
    refuse_taken(path)
    try:
        with replacing(path) as part:
            yield part
            refuse_taken(path)
    except OSError as error:
        raise RamoleError(
            f"{path} could not be written ({error.strerror or error}), and nothing is left of it; "
            "make room there, or name another place."
        ) from error


def refuse_taken(path: Path) -> None:
    """Raise RamoleError where something is there already, or could not be."""
    if os.path.lexists(path):
        raise RamoleError(f"{path} is there already; name another place, or remove it first.")
    if not path.parent.is_dir():
        raise RamoleError(f"There is no folder {path.parent} to write {path.name} into; make it.")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
