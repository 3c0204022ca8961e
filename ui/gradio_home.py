"""Gradio's environment, set before its import: a temporary folder for its files, and no telemetry.

A process that is killed leaves its folder behind; the next one that starts removes it.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "ramole-page-"
LOCK = ".in use"


def make_folder() -> tempfile.TemporaryDirectory:
    """Make the folder, unless the operator named another, and remove those of dead processes."""
    _remove_left(Path(tempfile.gettempdir()))
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    _locked(Path(made.name), keep=True)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(made.name) / "files"))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    return made


def folder_within(prefix: str) -> tempfile.TemporaryDirectory:
    """A folder of one use in this process's own, which goes with it where it is killed."""
    home = Path(CACHE.name)
    home.mkdir(exist_ok=True)  # processes that were forked share it, and one that ended removed it
    return tempfile.TemporaryDirectory(prefix=prefix, dir=home)


def _remove_left(place: Path) -> None:
    if os.name != "posix":
        return
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid() and (folder / LOCK).exists():
                if not _locked(folder, keep=False):
                    shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path, *, keep: bool) -> bool:
    """Whether a live process holds this folder; `keep`: this one does from now on."""
    if os.name != "posix":
        return True
    import fcntl

    lock = folder / LOCK
    made = folder / f"{LOCK}.made" if keep else lock
    held = made.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        return True
    if keep:
        made.rename(lock)  # nobody sees it before it is locked
        _held.append(held)
    else:
        held.close()
    return False


_held: list[object] = []
"""Open files whose locks mark this process's folders as in use."""
CACHE = make_folder()
