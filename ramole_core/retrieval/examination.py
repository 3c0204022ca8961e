"""Check that an index on disk can be opened safely: another process reads and rewrites it.

Some damage to Chroma's files ends the process that reads them, and cannot be caught in it. So a
folder is marked with the digest of its files when it is closed, and the mark goes when it is
opened. A folder without the right mark was left by a kill or changed from outside. Another process
reads every vector of it, compares each with the sum that was written beside it, and writes them
into a new folder, which takes the old one's place: no link of a damaged graph is followed later.
Where that process dies, takes too long or finds a difference, the index is broken.

    python -m ramole_core.retrieval.examination FOLDER NEW
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ramole_core.retrieval.collection import DATABASE, open_folder

MARK = "sound.sha256"
"""The digest's file, in the folder itself."""
SUM = "sum"
"""Name of a vector's checksum in its metadata."""
ROUNDED = 1e-5
"""Change of the checksum by Chroma, which stores direction and length apart."""
MAX_SECONDS, MAX_SECONDS_PER_MB = 300, 5
"""The most that an examination may take; 10,000 vectors of 1,408 numbers are 66 MB."""
ROWS = 1000
"""Vectors in one call to Chroma; a server refuses bodies beyond some tens of MB."""
REPOSITORY = Path(__file__).resolve().parents[2]


def mark(folder: Path) -> None:
    """Mark these files as closed by Chroma."""
    with suppress(OSError):  # on a full disk it is examined at the next start
        (folder / MARK).write_text(_digest(folder), encoding="ascii")


def make_safe(folder: Path) -> str:
    """Make an index that can be opened, perhaps an empty one, and remove its mark; returns its
    fault, or ''."""
    fresh, gone = (folder.with_name(f"{folder.name}.{end}") for end in ("fresh", "gone"))
    if not folder.exists() and _is_marked(fresh):  # a kill between the two renames below
        fresh.rename(folder)
    for left in (fresh, gone):
        shutil.rmtree(left, ignore_errors=True)
    if (folder / DATABASE).exists() and not _is_marked(folder):
        if wrong := _fault(folder, fresh):
            return wrong
        mark(fresh)
        folder.rename(gone)
        fresh.rename(folder)
        shutil.rmtree(gone, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a disk that is read only
        (folder / MARK).unlink(missing_ok=True)
    return ""


def _fault(folder: Path, fresh: Path) -> str:
    """The index's fault as found by another process; '' where that wrote all of it to `fresh`."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    size = sum(file.stat().st_size for file in folder.rglob("*"))
    seconds = MAX_SECONDS + MAX_SECONDS_PER_MB * size / 1e6
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ramole_core.retrieval.examination", str(folder), str(fresh)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"reading it takes more than {seconds:.0f} s"
    if done.returncode < 0:
        return f"reading it ends a process by {signal.Signals(-done.returncode).name}"
    said = done.stdout.decode(errors="replace").strip().splitlines()
    return "" if not done.returncode else (said or ["it cannot be read"])[-1]


def _is_marked(folder: Path) -> bool:
    try:
        return (folder / MARK).read_text("ascii", "replace") == _digest(folder)
    except OSError:
        return False


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.name != MARK:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            whole.update(f"{digest} {file.relative_to(folder)}\n".encode())
    return whole.hexdigest()


def weighted_sum(vector: Float32[np.ndarray, "d"]) -> float:
    """A checksum of a vector; 0 where it holds NaN or Inf."""
    with np.errstate(all="ignore"):
        found = vector.astype(np.float64) @ (1 + np.arange(len(vector)) % 7 / 7)
    return float(found) if np.isfinite(found) else 0.0


def _is_as_written(vector: Float32[np.ndarray, "d"], stored: Mapping[str, object] | None) -> bool:
    """Whether the vector has the checksum in its metadata; earlier indices have none."""
    said = (stored or {}).get(SUM)
    if not isinstance(said, int | float):
        return said is None
    return abs(said - weighted_sum(vector)) <= ROUNDED * (1 + abs(said))


def rewrite(folder: Path, fresh: Path) -> None:
    """Write every vector of the index in `folder` to a new one in `fresh`; raises Chroma's error,
    or ValueError for a vector that is not as it was written."""
    source, old = open_folder(folder)
    target, new = open_folder(fresh)
    keys = old.get(include=[])["ids"]
    for start in range(0, len(keys), ROWS):
        part = keys[start : start + ROWS]
        found = old.get(ids=part, include=["embeddings", "metadatas"])
        vectors = np.asarray(found["embeddings"], np.float32)
        metadatas = found["metadatas"] or []
        if len(metadatas) != len(part) or not all(map(_is_as_written, vectors, metadatas)):
            raise ValueError("it holds other vectors than were written")
        new.upsert(ids=found["ids"], embeddings=vectors, metadatas=metadatas)
    source.close()
    target.close()


if __name__ == "__main__":
    try:
        rewrite(Path(sys.argv[1]), Path(sys.argv[2]))
    except BaseException as error:  # a panic in Chroma's Rust is no Exception
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(lines[0][:300])
        sys.exit(1)
