"""The data folder's disk: its errors as sentences, and its writer's lock."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ramole_core.errors import AdapterRefused, Busy, RamoleError


class Closeable(Protocol):
    """What has a `close`."""

    def close(self) -> None: ...


_FULL = ("is full", "free some space, by removing adapters for instance, and try again")
_CLOSED = ("cannot be used", "let the program read and write there, or set RAMOLE_DATA_DIR")
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}
DISK_ERRORS = (*_REASONS, errno.EIO)
"""Error numbers of the disk itself, rather than of the data."""


@contextmanager
def refused_by_disk(done: str, *, what: str = "adapter") -> Iterator[None]:
    """Raise AdapterRefused for an error of the disk in the body, which must leave all as it was;
    `done` is what then `what` was not: `added`, `removed`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's, but a library's own
            raise
        state, advice = _REASONS.get(error.errno, ("failed", "check it, and try again"))
        raise AdapterRefused(
            f"The pool's disk {state} ({error.strerror}), so the {what} was not {done} and all is "
            f"as it was; {advice}."
        ) from error


@contextmanager
def usable_folder(folder: Path) -> Iterator[None]:
    """Raise RamoleError for a data folder that cannot be made or read in the body."""
    try:
        yield
    except OSError as error:
        raise RamoleError(
            f"The data folder {folder} cannot be used ({error.strerror or error}); set "
            "RAMOLE_DATA_DIR to a folder that the program may write to."
        ) from error


@contextmanager
def closed_on_error(one: Closeable) -> Iterator[None]:
    """Close what is being opened where the body raises, so that another try finds it free."""
    try:
        yield
    except BaseException:
        one.close()
        raise


class WriterLock:
    """A lock of a data folder from construction to `close()`; raises Busy when another process has
    it. It is on the folder itself, so that no file is left behind; the kernel drops it when the
    process ends, however it ends."""

    def __init__(self, folder: Path):
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(os.fstat(self._descriptor))
            self.close()
            raise Busy(
                f"The data folder {folder} is in use by {holder}; stop it, or set RAMOLE_DATA_DIR "
                "to another folder."
            ) from None

    def close(self) -> None:
        """Release the lock; call it once."""
        os.close(self._descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of the folder."""
    try:
        WriterLock(folder).close()
    except Busy:
        return True
    return False


def _holder(status: os.stat_result) -> str:
    """`process 123`, from Linux's table of locks; `another process` elsewhere."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        rows = Path("/proc/locks").read_text().splitlines()
    except OSError:
        rows = []
    for row in rows:
        words = row.split()
        if device in words and "FLOCK" in words and "->" not in words:
            pid = words[4]
            return "this very process" if pid == str(os.getpid()) else f"process {pid}"
    return "another process"
