"""Whether an index on disk can be opened without harm: Chroma ends the process at some damage.

A damaged graph is read past its end, and nobody in this process can catch that. So a folder is
marked with the digest of its files when it is closed, and the mark goes when it is opened. Whatever
bears no mark, or another one, was left by a kill or changed by somebody: another process looks at
it first, and an index at which that one dies is broken. So is one whose vectors do not have the
sums that were written with them, and one whose graph points at what is not there
(`graph_check.py`): bits were flipped.
"""

import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float32

MARK = "sound.sha256"
"""The digest's file, in the folder itself."""
REPOSITORY = Path(__file__).resolve().parents[2]
PASSING = ("-wal", "-shm", "-journal")
"""Ends of the names of SQLite's own files, which come and go with every question."""
SUM = "sum"
"""Of a vector, in its metadata."""
ROUNDED = 1e-5
"""How far Chroma, which keeps direction and length apart, moves it."""
Files = dict[str, tuple[int, int, int]]
"""Number, size and time of each file by path."""
SECONDS = 300
"""The most that an examination may take."""


def mark(folder: Path) -> None:
    """Say that these files are as Chroma left them; without a word where the disk is full."""
    try:
        (folder / MARK).write_text(_digest(folder), encoding="ascii")
    except OSError:
        unmark(folder)


def unmark(folder: Path) -> None:
    """Whoever opens the folder answers for it from now on."""
    try:
        (folder / MARK).unlink(missing_ok=True)
    except OSError:
        pass


def is_marked(folder: Path) -> bool:
    """Whether these are the files that were closed."""
    try:
        return (folder / MARK).read_text("ascii", "replace") == _digest(folder)
    except OSError:
        return False


def state_of(folder: Path) -> Files:
    """By this one sees that files were changed, without reading them."""
    found: Files = {}
    for path in folder.rglob("*"):
        if path.name != MARK and not path.name.endswith(PASSING):
            try:
                told = path.stat()
            except OSError:  # gone meanwhile
                continue
            if not stat.S_ISDIR(told.st_mode):
                found[str(path)] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


def complaint(folder: Path) -> str:
    """What another process finds broken in the index; '' for a sound one."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ramole_core.retrieval.examination", str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {SECONDS} s"
    if done.returncode < 0:
        return f"reading it ends a process by {signal.Signals(-done.returncode).name}"
    said = done.stdout.decode(errors="replace").strip().splitlines()
    return "" if not done.returncode else (said or ["it cannot be read"])[-1]


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.name != MARK:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            whole.update(f"{digest} {file.relative_to(folder)}\n".encode())
    return whole.hexdigest()


def weighted_sum(vector: Float32[np.ndarray, "d"]) -> float:
    """By this one sees that a vector is another one now; 0 where it holds NaN or Inf."""
    with np.errstate(all="ignore"):
        found = vector.astype(np.float64) @ (1 + np.arange(len(vector)) % 7 / 7)
    return float(found) if np.isfinite(found) else 0.0


def is_as_written(vector: Float32[np.ndarray, "d"], said: object) -> bool:
    """Whether the vector has the sum that was `said`; of earlier indices, which said none, yes."""
    if not isinstance(said, int | float):
        return said is None
    return abs(said - weighted_sum(vector)) <= ROUNDED * (1 + abs(said))
