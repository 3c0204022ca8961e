"""Compile the kernels in processes of their own, while the base model is fetched and converted."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ramole_core.kernels.code_cache import CACHE, HERE, complete, mark_complete

LOG = logging.getLogger(__name__)
PARTS = 2
"""Processes; `all.py` has what each compiles."""


@contextmanager
def compiled_ahead(quantization: str) -> Iterator[Callable[[int], None] | None]:
    """Compile what a base in this precision needs and the cache has not; gives a function that
    waits for so many parts, of which the first has the products; None where nothing is missing, or
    nothing is kept."""
    if not CACHE or complete(quantization).is_file():
        yield None
        return
    processes: list[subprocess.Popen] = []
    with suppress(OSError):  # no room for a process: what is missing is compiled here
        for part in range(PARTS):
            processes.append(_start(part, quantization))

    def wait(parts: int) -> None:
        codes = [process.wait() for process in processes[:parts]]
        if any(codes):
            LOG.warning("Kernels were not compiled ahead (exit %s); they are compiled now.", codes)
        elif len(codes) == PARTS:
            mark_complete(quantization)

    try:
        yield wait
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _start(part: int, quantization: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ramole_core.kernels.all", str(part), quantization],
        cwd=HERE.parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what it could not compile is compiled, and reported, here
    )
