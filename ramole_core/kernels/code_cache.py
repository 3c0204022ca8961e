"""The cache folder of compiled kernels, one for each version of their source.

numba keeps a function's code for as long as the file in which it stands is the same. A kernel is
made of functions of several files, so after a change in one of them it would go on with old code.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numba
from llvmlite.binding import get_host_cpu_name
from numba.core import config

HERE = Path(__file__).parent
UNUSED_DAYS = 30
"""After which the code of another version is swept."""


def _root() -> Path:
    """Beside the source; in the user's cache folder where that is somebody else's."""
    if os.access(HERE, os.W_OK):
        return HERE / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "ramole" / "kernels"


def _version() -> str:
    switches = [
        os.environ.get(name, "") for name in ("RAMOLE_LANES", "RAMOLE_MATRIX", "RAMOLE_HALVES")
    ]
    digest = hashlib.sha256("/".join(switches).encode())
    for file in (*sorted(HERE.glob("*.py")), HERE.parent / "composition" / "activation.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


FOLDER = _root() / f"kernels-{_version()}"
CACHE = _writable(FOLDER)
"""Whether code is kept at all."""
COMPLETE = FOLDER / f"complete-{get_host_cpu_name()}-{numba.__version__}-{sys.hexversion:x}"
"""Is there once all kernels were compiled for this CPU; its time is that of the last use. Where
numba finds their code no more, they are compiled when they are needed."""


@contextmanager
def kept_here() -> Iterator[None]:
    """Cache what numba compiles inside in FOLDER."""
    before = config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue]
    config.CACHE_DIR = str(FOLDER) if CACHE else before  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]


def mark_complete() -> None:
    """Say that all kernels are there, and sweep versions that nobody has used for a month."""
    if not CACHE:
        return
    with suppress(OSError):  # swept, or another user's
        COMPLETE.touch()
    for other in FOLDER.parent.glob("kernels-*"):
        with suppress(OSError):  # another process sweeps too
            used = max(path.stat().st_mtime for path in (other, *other.glob("complete-*")))
            if used < time.time() - UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
