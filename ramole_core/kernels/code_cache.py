"""The cache folder of compiled kernels, one for each version of their source.

numba keeps a function's code for as long as the file in which it stands is the same, beside others
of its folder. A kernel is made of functions of several files, so after a change in one of them it
would go on with old code, and each checkout of one source would compile its own.
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
from numba.core.caching import UserProvidedCacheLocator

HERE = Path(__file__).parent
UNUSED_DAYS = 30
"""Days after which another version's code is deleted."""


def _roots() -> tuple[Path, ...]:
    """The user's cache folder, and one beside the source where there is none."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "ramole" / "kernels", HERE / "__pycache__"


def _version() -> str:
    switches = [
        os.environ.get(name, "") for name in ("RAMOLE_LANES", "RAMOLE_MATRIX", "RAMOLE_HALVES")
    ]
    digest = hashlib.sha256("/".join([*switches, numba.__version__]).encode())
    for file in (*sorted(HERE.glob("*.py")), HERE.parent / "composition" / "activation.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


_folders = [root / f"kernels-{_version()}" for root in _roots()]
FOLDER = next(filter(_writable, _folders), _folders[0])
CACHE = _writable(FOLDER)
"""Whether code is cached."""


def complete(quantization: str) -> Path:
    """The file that is there once all kernels that a base in this precision needs were compiled for
    this CPU; its time is that of the last use. Where numba finds their code no more, they are
    compiled when they are needed."""
    return FOLDER / f"complete-{quantization}-{get_host_cpu_name()}-{sys.hexversion:x}"


class InFolder(UserProvidedCacheLocator):
    """numba's name for a place of code: FOLDER, whose version stands for all sources."""

    def get_cache_path(self) -> str:
        return str(FOLDER)

    def get_source_stamp(self) -> bytes:
        return FOLDER.name.encode()


@contextmanager
def kept_here() -> Iterator[None]:
    """Cache what numba compiles inside in FOLDER."""
    said = {"CACHE_DIR": str(FOLDER)} if CACHE else {}
    said["CACHE_LOCATOR_CLASSES"] = f"{__name__}.{InFolder.__name__}"
    before = {name: getattr(config, name, "") for name in said}
    for name, value in said.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def mark_complete(quantization: str) -> None:
    """Mark all kernels as there, and delete versions that were not used for a month."""
    if not CACHE:
        return
    with suppress(OSError):  # swept, or another user's
        complete(quantization).touch()
    for other in FOLDER.parent.glob("kernels-*"):
        with suppress(OSError):  # another process sweeps too
            used = max(path.stat().st_mtime for path in (other, *other.glob("complete-*")))
            if used < time.time() - UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
