"""Work in a forked child, which may die of it or hang, and harms nobody."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def forked(work: Callable[[], object], said: Path) -> int:
    """A child that does `work`, writes what it returns to `said` as JSON, and ends with 0, or
    with 3 for an exception; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        with open(f"{said}.err", "w") as told:
            os.dup2(told.fileno(), 2)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        said.write_text(json.dumps(work()))
    except BaseException as error:
        lines = traceback.format_exception(error)
        said.write_text(json.dumps("".join(lines)[-1500:]))
        os._exit(3)
    os._exit(0)


def awaited(child: int, *, seconds: float) -> int | None:
    """The child's exit status, negative for a signal; None where it hung, and was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
