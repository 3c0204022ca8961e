"""The writer lock of a data folder, on the folder itself, so that no file is left behind.

The kernel drops it when the process ends, however it ends.
"""

import fcntl
import os
from pathlib import Path

from ramole_core.errors import Busy


class WriterLock:
    """A lock held from construction to `close()`; raises Busy when another process has it."""

    def __init__(self, folder: Path):
        self._descriptor: int | None = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
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
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
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
