"""Work in threads and in processes of their own, which a test waits for."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def at_once(*jobs: Callable[[], object], seconds: float = 600) -> None:
    """Run each job in a thread of its own, all at the same time, and wait for the last."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads)


def python(
    *words: str | Path, stdin: str = "", seconds: float = 600, **said: str
) -> subprocess.CompletedProcess[str]:
    """What Python has done with these words in the repository's root, with `said` in its
    environment."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env=os.environ | said,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
