"""Pages of the fake system, each in a process of its own, forked off one that has imported Gradio.

What they import takes three seconds of a core, for half a hundred servers in the suite.
`python -m tests.support.warm_server` reads one server a line, JSON of module, arguments,
environment and the file for its output, and answers with its process number. What `app.py` and the
commands do from the first import on is tested in processes that start as a user's
(`tests.support.serving.running`).
"""

import faulthandler
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import psutil

from tests.support.workers import REPOSITORY

IMPORTED = (
    *("ui", "ui.serve", "ui.api.endpoints", "tests.support.ask_page", "tests.support.pool_fakes"),
    *("ui.inspect.tab", "ui.results.tab", "ui.learn.tab"),
    *("uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto"),
    *("uvicorn.lifespan.on", "plotly.graph_objs._figure", "plotly.io"),
)
"""What each of them would import."""
OUTSIDE = dict(os.environ)
"""As this module was imported: a test may change what a folder of its own is named by, and the
processes that were forked off go on when that is gone."""
HOLDS_FOLDER = ("gradio.route_utils", "gradio.mcp", "gradio.screen_recording_utils")
"""Modules that read GRADIO_TEMP_DIR when they are imported."""


class Forked(psutil.Process):
    """A server that was forked, with what `subprocess.Popen` offers of it."""

    returncode = None

    def poll(self) -> int | None:
        """None while it runs; what it ended with is not known."""
        return None if self.is_running() and self.status() != psutil.STATUS_ZOMBIE else 1

    def wait(self, timeout: float | None = None) -> None:
        try:
            super().wait(timeout)
        except psutil.TimeoutExpired:
            raise subprocess.TimeoutExpired("a forked server", timeout or 0.0) from None

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            super().send_signal(sig)


def start(module: str, arguments: list[str], *, environment: dict[str, str], log: Path) -> Forked:
    """The module as a program, its output in `log`."""
    parent = _parent()
    assert parent.stdin is not None and parent.stdout is not None
    said = {"module": module, "arguments": arguments, "environment": environment, "log": str(log)}
    parent.stdin.write(json.dumps(said) + "\n")
    parent.stdin.flush()
    return Forked(int(parent.stdout.readline()))


@cache
def _parent() -> subprocess.Popen[str]:
    """Ends with this process, which holds the other end of its input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm_server"],
        cwd=REPOSITORY,
        env={**OUTSIDE, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has ended leaves nothing behind
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            return _serve(**json.loads(line))
        print(child, flush=True)


def _serve(module: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be that server, in a process that was just forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output, nothing = os.open(log, os.O_WRONLY | os.O_CREAT), os.open(os.devnull, os.O_RDONLY)
    for mine, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(mine, number)
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # which the environment names anew
    for name in HOLDS_FOLDER:
        sys.modules[name].DEFAULT_TEMP_DIR = environment["GRADIO_TEMP_DIR"]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
