"""The cache folder of compiled kernels, one for each version of their source.

numba keeps a function's code for as long as the file in which it stands is the same. A kernel is
made of functions of several files, so after a change in one of them it would go on with old code.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba.core import config

HERE = Path(__file__).parent
CACHE = os.access(HERE, os.W_OK)
"""Whether code is kept at all."""


def _version() -> str:
    switches = [
        os.environ.get(name, "") for name in ("RAMOLE_LANES", "RAMOLE_MATRIX", "RAMOLE_HALVES")
    ]
    digest = hashlib.sha256("/".join(switches).encode())
    for file in (*sorted(HERE.glob("*.py")), HERE.parent / "composition" / "activation.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


FOLDER = HERE / "__pycache__" / f"kernels-{_version()}"


@contextmanager
def kept_here() -> Iterator[None]:
    """Cache what numba compiles inside in FOLDER."""
    before = config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue]
    config.CACHE_DIR = str(FOLDER) if CACHE else before  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
