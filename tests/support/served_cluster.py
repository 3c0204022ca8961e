"""The command `serve` in a process of its own, on a tiny base, and its engines' processes."""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.serving import Server, running

SETTINGS = {"device": "cpu", "quantization": "none", "dtype": "float32"}
ENGINE = "ServeReplica:engines"


@dataclass(frozen=True)
class Cluster:
    """A page over engines, running."""

    server: Server
    ray: Path

    @property
    def url(self) -> str:
        return self.server.url

    def engines(self) -> set[int]:
        """Process ids of the engines that have begun."""
        return {process for process, name in self._processes() if ENGINE in name}

    def page(self) -> int:
        """Process id of the page."""
        return next(p for p, name in self._processes() if "ServeReplica:page" in name)

    def page_log(self) -> str:
        """What the page has said on its standard error."""
        logs = self.ray / "ray/session_latest/logs"
        return next(logs.glob(f"worker-*-{self.page()}.err")).read_text()

    def _processes(self) -> Iterator[tuple[int, str]]:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                name = (place / "cmdline").read_text()
                if "ServeReplica" in name and str(self.ray) in (place / "environ").read_text():
                    yield int(place.name), name
            except OSError:
                continue

    def numbers(self) -> dict[str, float]:
        """`/metrics`, labels as they are written there."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        return {
            name: float(value) for name, value in re.findall(r"^(ramole_[^ ]+) (\S+)$", text, re.M)
        }

    def ready(self, engines: int, *, seconds: float = 400) -> None:
        """Wait until so many engines can be asked."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                health = httpx.get(f"{self.url}/health", timeout=20).json()
                if health["status"] == "ok" and self.numbers().get("ramole_engines") == engines:
                    return
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.2)
        raise AssertionError(
            f"no {engines} engines within {seconds} s:\n{self.server.log.read_text()}"
        )


@contextmanager
def served(root: Path, *words: str, engines: int = 2, **settings: object) -> Iterator[Cluster]:
    """The page over so many engines, ended by SIGTERM; `settings` as RAMOLE_*."""
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets have short names
    command = [sys.executable, "-m", "ramole_core", "serve", "--engines", str(engines), *words]
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(ray)
    try:
        with running(command, root / "page", seconds=400, **settings) as server:
            cluster = Cluster(server, ray)
            cluster.ready(engines)
            yield cluster
    finally:
        os.environ.pop("RAY_TMPDIR")
        if before:
            os.environ["RAY_TMPDIR"] = before
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
