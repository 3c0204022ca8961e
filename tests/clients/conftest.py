"""The page with the real base model, for clients that are installed beside it (`make clients`)."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv" / "bin" / "python"
START_SECONDS = 900
"""The first start of a machine fetches the base model and compiles kernels."""


@dataclass(frozen=True)
class Place:
    """A page that answers."""

    url: str
    """Of its OpenAI routes."""
    tokenizer: Path
    """Folder of the base model's."""


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Iterator[Place]:
    """A page of its own; or the one at RAMOLE_URL, whose data folder is RAMOLE_DATA_DIR."""
    data = Path(os.environ.get("RAMOLE_DATA_DIR") or tmp_path_factory.mktemp("data"))
    url = os.environ.get("RAMOLE_URL")
    if url is not None:
        yield _place(url, data)
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    said = {"RAMOLE_DATA_DIR": str(data), "RAMOLE_PORT": str(port)}
    log = data / "page.log"
    with log.open("wb") as output:
        page = subprocess.Popen(
            [PYTHON, "app.py"],
            cwd=REPOSITORY,
            env=os.environ | said,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", page, log)
        yield _place(f"http://127.0.0.1:{port}", data)
    finally:
        page.terminate()
        page.wait(60)


def _place(url: str, data: Path) -> Place:
    (tokenizer,) = {file.parent for file in data.glob("base/*/tokenizer.json")}
    return Place(f"{url}/v1", tokenizer)


def _wait(url: str, page: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and page.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=20) as told:
                if b'"ok"' in told.read():
                    return
        except OSError:
            pass
        time.sleep(1)
    raise AssertionError(f"The page is not there:\n{log.read_text(encoding='utf-8')}")
