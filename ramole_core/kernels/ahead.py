"""Compile the kernels in a process of its own, while the base model is fetched and converted."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ramole_core.kernels.code_cache import CACHE, COMPLETE, HERE


@contextmanager
def compiled_ahead() -> Iterator[Callable[[], None]]:
    """Compile what the cache has not; gives a function that waits until it is all there."""
    if not CACHE or COMPLETE.is_file():
        yield lambda: None
        return
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ramole_core.kernels.all"],
            cwd=HERE.parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what it could not compile is compiled, and told, here
        )
    except OSError:  # no room for a process: they are compiled here
        yield lambda: None
        return

    def wait() -> None:
        process.wait()

    try:
        yield wait
    finally:
        process.kill()
        process.wait()
