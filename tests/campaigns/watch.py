"""What is watched of a server while others harm it: how soon /health answers, and its memory."""

import json
import os
import select
import time
from pathlib import Path

import httpx

from tests.campaigns.children import awaited, forked
from tests.support.serving import Server

PAUSE = 0.05


class Health:
    """Asks for /health twenty times a second while the block runs, in a process of its own, which
    nothing else here delays."""

    def __init__(self, server: Server, said: Path):
        self.url, self.said = f"{server.url}/health", said
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.late = 0.0
        """Seconds that this process itself was woken too late at most, by a busy machine."""

    def __enter__(self) -> "Health":
        reading, self._end = os.pipe()
        self._child = forked(lambda: self._ask(reading), self.said)
        os.close(reading)
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._end, b"\n")
        os.close(self._end)
        assert awaited(self._child, seconds=400) == 0, self.said.read_text()
        self.seconds, self.errors, self.late = json.loads(self.said.read_text())

    def _ask(self, end: int) -> tuple[list[float], list[str], float]:
        seconds: list[float] = []
        errors: list[str] = []
        late, slept = 0.0, time.perf_counter()
        with httpx.Client(timeout=300) as http:
            while not select.select([end], [], [], PAUSE)[0]:
                began = time.perf_counter()
                late = max(late, began - slept - PAUSE)
                try:
                    http.get(self.url).raise_for_status()
                except httpx.HTTPError as error:
                    errors.append(str(error))
                slept = time.perf_counter()
                seconds.append(slept - began)
        return seconds, errors, late


def memory(server: Server, word: str) -> float:
    """MiB that the server's process has now (VmRSS) or had at most (VmHWM)."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(word))
    return int(line.split()[1]) / 1024
