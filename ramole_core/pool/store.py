"""Changes to DATA_DIR, each one whole or not at all, at any kill -9.

A folder is built and fsynced in `staging/<random>`, then one rename makes it an upload. Whatever a
kill left in `staging` is swept at the next start; an empty folder is never left behind.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramole_core.pool.names import owner_folder

_OLD = ".old"


class Store:
    """The uploads of every owner: `uploads/<owner's folder>/<name>`."""

    def __init__(self, data_dir: Path):
        self._uploads = data_dir / "uploads"
        self._staging = data_dir / "staging"
        self._lock = threading.Lock()

    def place(self, name: str, owner: str | None) -> Path:
        """Where an upload lives."""
        return self._uploads / owner_folder(owner) / name

    def folders(self) -> list[Path]:
        """Every upload on disk, sound or not."""
        return [path for mine in _folders(self._uploads) for path in _folders(mine)]

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A new empty folder to build in; it is gone afterwards unless it was published."""
        with self._lock:
            folder = self._staging / secrets.token_hex(8)
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            self._discard(folder)

    def publish(self, staged: Path, target: Path) -> None:
        """Makes `staged` the upload `target`, which must not exist."""
        _sync(staged)
        with self._lock:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(staged, target)
        _sync_folder(target.parent)
        _sync_folder(target.parent.parent)

    def replace(self, staged: Path, target: Path) -> None:
        """Puts `staged` in the place of the upload `target`; a kill in between is undone by the
        next sweep."""
        _sync(staged)
        old = self._staging / f"{target.parent.name}.{target.name}{_OLD}"
        os.rename(target, old)
        os.rename(staged, target)
        _sync_folder(target.parent)
        self._discard(old)

    def withdraw(self, target: Path) -> None:
        """Removes the upload `target`."""
        with self._lock:
            self._staging.mkdir(exist_ok=True)
            gone = self._staging / secrets.token_hex(8)
            os.rename(target, gone)
        _sync_folder(target.parent)
        self._discard(gone)
        self._prune(target.parent)

    def sweep(self) -> None:
        """Undoes or finishes whatever was under way when the last process ended."""
        for left in _folders(self._staging):
            owner, _, name = left.name.removesuffix(_OLD).partition(".")
            target = self._uploads / owner / name
            if left.name.endswith(_OLD) and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(left, target)
            else:
                self._discard(left)
        for mine in _folders(self._uploads):
            self._prune(mine)
        self._prune(self._staging)
        self._prune(self._uploads)

    def _discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._prune(self._staging)

    def _prune(self, folder: Path) -> None:
        """Removes `folder`, and `uploads` above it, if empty."""
        with self._lock, suppress(OSError):
            folder.rmdir()
            if folder.parent == self._uploads:
                self._uploads.rmdir()


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
