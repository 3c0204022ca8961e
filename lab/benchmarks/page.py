"""The page as benchmarks start it: on a fresh DATA_DIR that borrows the converted base."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from ramole_core.settings import REPOSITORY, load_settings

SECONDS = 300
"""Within which a started page must be ready."""


@dataclass(frozen=True)
class Started:
    """A page in a process of its own."""

    url: str
    pid: int
    began: float

    def wait(self, ready: Callable[[dict], bool] = lambda health: True) -> float:
        """Seconds from the start until its /health says so."""
        while time.perf_counter() - self.began < SECONDS:
            try:
                if ready(httpx.get(f"{self.url}/health", timeout=5).json()):
                    return time.perf_counter() - self.began
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"The page was not ready within {SECONDS} s.")


def has_model(health: dict) -> bool:
    """Whether the base model is loaded."""
    return health["model"]["ready"]


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A DATA_DIR of its own with the converted base of the usual one."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "base").symlink_to(load_settings().data_dir.resolve() / "base")
        yield Path(folder)


@contextmanager
def page_on(folder: Path, **settings: object) -> Iterator[Started]:
    """app.py on this DATA_DIR, as `make run` starts it; `settings` by their own names."""
    port = free_port()
    said = {f"RAMOLE_{name.upper()}": str(value) for name, value in settings.items()}
    said |= {"RAMOLE_DATA_DIR": str(folder), "RAMOLE_PORT": str(port)}
    began = time.perf_counter()
    with running([sys.executable, "app.py"], REPOSITORY, os.environ | said) as page:
        yield Started(f"http://127.0.0.1:{port}", page.pid, began)


@contextmanager
def running(
    command: Sequence[str | Path],
    folder: Path,
    env: Mapping[str, str],
    log: IO[bytes] | None = None,
) -> "Iterator[subprocess.Popen[bytes]]":
    """A command and all that it starts, ended afterwards."""
    started = subprocess.Popen(
        command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield started
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
