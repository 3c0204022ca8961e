"""The command `serve` in a process of its own, on a tiny base, and its engines' processes."""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import httpx

from tests.support.serving import Server, running, wait_until
from tests.support.started import started

SETTINGS = {"device": "cpu", "quantization": "none", "dtype": "float32"}


@dataclass(frozen=True)
class Cluster:
    """A page over engines, running."""

    server: Server
    ray: Path

    @property
    def url(self) -> str:
        return self.server.url

    def processes(self, name: str) -> set[int]:
        """Process ids of those that have begun under this name."""
        found = set()
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                named = name in (place / "cmdline").read_text()
                if named and str(self.ray) in (place / "environ").read_text():
                    found.add(int(place.name))
        return found

    def engines(self) -> set[int]:
        return self.processes("ServeReplica:engines")

    def page(self) -> int:
        (process,) = self.processes("ServeReplica:page")
        return process

    def page_log(self) -> str:
        """What the page has said on its standard error."""
        logs = self.ray / "ray/session_latest/logs"
        return next(logs.glob(f"worker-*-{self.page()}.err")).read_text()

    def numbers(self) -> dict[str, float]:
        """`/metrics`, labels as they are written there."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = re.findall(r"^(ramole_[^ ]+) (\S+)$", text, re.M)
        return {"ramole_engines": 0.0} | {name: float(value) for name, value in found}

    def ready(self, engines: int) -> None:
        """Wait until so many engines can be asked."""

        def holds() -> bool:
            with suppress(httpx.HTTPError, ValueError):
                health = httpx.get(f"{self.url}/health", timeout=20).json()
                return health["status"] == "ok" and self.numbers()["ramole_engines"] == engines
            return False

        wait_until(holds, pause=0.2)


@contextmanager
def served(root: Path, *words: str, engines: int = 2, **settings: object) -> Iterator[Cluster]:
    """The page over so many engines, ended by SIGTERM; `settings` as RAMOLE_*."""
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets have short names
    command = [sys.executable, "-m", "ramole_core", "serve", "--engines", str(engines), *words]
    started("cluster")
    try:
        with (
            patch.dict(os.environ, RAY_TMPDIR=str(ray)),
            running(command, root / "page", **settings) as server,
        ):
            cluster = Cluster(server, ray)
            cluster.ready(engines)
            yield cluster
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def chat(url: str, **body: object) -> Iterator[tuple[str, list[int]]]:
    """Texts of a streamed answer by OpenAI's way, each with the token ids where they are told."""
    asked = {"stream": True, **body}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=60) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                text = chunk["choices"][0]["delta"].get("content") or ""
                yield text, chunk.get("ramole", {}).get("token_ids", [])
