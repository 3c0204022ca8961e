"""Translate OSError into AdapterRefused; callers undo what they began."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramole_core.errors import AdapterRefused, RamoleError

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
"""Numbers of errors that are the disk's own, and no fault of what is read or written."""


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
