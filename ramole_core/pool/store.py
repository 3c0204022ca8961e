"""Atomic changes to DATA_DIR, at any kill -9 and on any full disk.

A folder is built and fsynced in `staging/<random>`, then one rename makes it an upload. An upload
is removed by a rename too, to `.<random>` beside it: that needs no space. Leftovers of a kill are
swept at the next start; no empty folder remains.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.names import owner_folder

_EARLIER = ".old"


class Store:
    """The uploads of every owner: `uploads/<owner's folder>/<name>`."""

    def __init__(self, data_dir: Path):
        self._uploads = data_dir / "uploads"
        self._staging = data_dir / "staging"
        self._lock = threading.RLock()

    def place(self, name: str, owner: str | None) -> Path:
        """The folder of an upload."""
        return self._uploads / owner_folder(owner) / name

    def folders(self) -> tuple[list[Path], list[str]]:
        """Every upload on disk, sound or not, and a sentence for each owner's folder that cannot
        be read."""
        found, problems = [], []
        for mine in _folders(self._uploads):
            try:
                found += [path for path in _folders(mine) if not path.name.startswith(".")]
            except OSError as error:
                problems.append(
                    f"The uploads in {mine} are left out: the folder cannot be read "
                    f"({error.strerror}); check the disk."
                )
        return found, problems

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Make an empty folder to build in, deleted afterwards unless it was published."""
        folder = self._staging / secrets.token_hex(8)
        try:
            with self._lock:
                folder.mkdir(parents=True)
            yield folder
        finally:
            self.discard(folder)

    @contextmanager
    def publish(self, staged: Path, target: Path) -> Iterator[None]:
        """Publish `staged` as the upload `target`, replacing one that exists.

        The earlier one is put back if the body raises, and by the next sweep after a kill.
        """
        _sync(staged)
        with self._lock:
            self._drop_earlier(target)
            replaced = target.exists()
            if replaced:
                os.rename(target, self._earlier(target))
        try:
            with self._lock:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(staged, target)
            _settle(target.parent, target.parent.parent)
            yield
        except BaseException:
            with self._lock:
                gone = _hide(target)
                if replaced:
                    os.rename(self._earlier(target), target)
            self.discard(gone)
            raise
        with suppress(OSError):  # then the next change or sweep drops it
            self._drop_earlier(target)

    def hide(self, target: Path) -> Path:
        """Hide the upload `target`, keeping its files until `discard`, `show` or the next start;
        returns where. Raises OSError with everything where it was."""
        with self._lock:
            self._drop_earlier(target)
            gone = _hide(target)
        _settle(target.parent)
        return gone

    @contextmanager
    def show(self, hidden: Path, target: Path) -> Iterator[None]:
        """Restore a hidden upload as `target`; hidden again if the body raises. Raises
        AdapterRefused where the place is taken, or where there is nothing to put back."""
        if not hidden.is_dir() or target.exists():
            raise AdapterRefused(
                f"The files of {target.name!r} cannot be put back; add the adapter again."
            )
        self._move(hidden, target)
        try:
            yield
        except BaseException:
            self._move(target, hidden)
            raise

    def _move(self, source: Path, target: Path) -> None:
        with self._lock:
            os.rename(source, target)
        _settle(target.parent)

    def sweep(self) -> list[str]:
        """Undo or finish what the last process had begun; returns a sentence for each failure,
        which the next start retries."""
        problems = []
        for left in _folders(self._staging):
            owner, _, name = left.name.removesuffix(_EARLIER).partition(".")
            target = self._uploads / owner / name
            try:
                if left.name.endswith(_EARLIER) and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.rename(left, target)
                else:
                    _delete(left)
            except OSError as error:
                what = (
                    f"The earlier adapter {name!r} could not be put back"
                    if name
                    else f"What an unfinished change left in {left} could not be deleted"
                )
                problems.append(f"{what} ({error.strerror}); check the disk and start again.")
        for mine in _folders(self._uploads):
            for left in mine.glob(".*"):
                try:
                    _delete(left)
                except OSError as error:
                    problems.append(
                        f"What a removed adapter left in {left} could not be deleted "
                        f"({error.strerror}); check the disk and start again."
                    )
            self._prune(mine)
        self._prune(self._staging)
        self._prune(self._uploads)
        return problems

    def _earlier(self, target: Path) -> Path:
        """The place of the earlier upload `target` while another replaces it."""
        return self._staging / f"{target.parent.name}.{target.name}{_EARLIER}"

    def _drop_earlier(self, target: Path) -> None:
        """Delete the replaced upload, so that no sweep restores it."""
        if (left := self._earlier(target)).exists():
            gone = self._staging / secrets.token_hex(8)
            os.rename(left, gone)
            self.discard(gone)

    def discard(self, folder: Path) -> None:
        """Delete a folder in `staging` or a hidden one, and its parent if it is empty then; what
        the disk does not delete is left to the next sweep."""
        with suppress(OSError):
            _delete(folder)
        self._prune(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Remove `folder`, and `uploads` above it, if empty."""
        with self._lock, suppress(OSError):
            folder.rmdir()
            if folder.parent == self._uploads:
                self._uploads.rmdir()


def link_file(source: Path, target: Path) -> None:
    """Hard-link a file; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _hide(upload: Path) -> Path:
    """Rename an upload out of the way; no error if its files are gone already."""
    hidden = upload.with_name("." + secrets.token_hex(8))
    with suppress(FileNotFoundError):
        os.rename(upload, hidden)
    return hidden


def _delete(folder: Path) -> None:
    """Delete all of `folder` that can be; raises OSError for the first that cannot."""
    failed = []
    shutil.rmtree(folder, onerror=lambda work, path, error: failed.append(error[1]))
    if failed and folder.exists():
        raise failed[0]


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


def _settle(*folders: Path) -> None:
    """Fsync folders in which a rename was done, so that it outlives a power cut. Where that fails
    the rename is done all the same: undoing it could fail half way."""
    with suppress(OSError):
        for folder in folders:
            _sync_folder(folder)
