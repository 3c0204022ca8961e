"""A file system of a few megabytes that can be filled and made read-only, and is gone afterwards.

Only root may mount one; `unshare -rm` makes anybody root of a world of their own, where the system
allows that.
"""

import errno
import gc
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._filler = folder / "filler"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, left: int) -> None:
        """Leaves about `left` bytes."""
        try:
            with self._filler.open("ab", buffering=0) as file:
                while (more := self.free - left) > 0:
                    file.write(bytes(min(more, 2**20)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close_for_writing(self) -> None:
        """Read-only from now on, as soon as no file is open for writing."""
        for _ in range(100):
            gc.collect()
            with suppress(subprocess.CalledProcessError):
                return self._remount("ro")
            time.sleep(0.05)
        self._remount("ro")

    def open_for_writing(self) -> None:
        self._remount("rw")

    def _remount(self, way: str) -> None:
        """Without the options that are there: their user may be none of this namespace."""
        _mount("--options-mode=ignore", "-o", f"remount,{way}", str(self.folder))


@contextmanager
def small_disk(folder: Path, *, kib: int) -> Iterator[SmallDisk]:
    """Raises OSError or CalledProcessError where nothing may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def way_to_mount() -> list[str] | None:
    """What to put before a command that mounts: nothing, `unshare -rm`, or None: no way."""
    look = "mount -t tmpfs tmpfs /mnt && umount /mnt"
    for before in ([], ["unshare", "-rm"]):
        if before and not shutil.which(before[0]):
            continue
        if not subprocess.run([*before, "sh", "-c", look], capture_output=True).returncode:
            return before
    return None


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
