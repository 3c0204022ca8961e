"""Mutated uploads at a running server: none is taken that should not be, and nothing is left.

Three strangers upload at a time by the public endpoint. What is taken is read again by other
readers (`judge.py`) and removed; then nothing may lie anywhere. Beside them somebody asks for
`/health` without end.
"""

import json
import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from ramole_core.settings import Settings
from tests.campaigns.figures import Figures
from tests.campaigns.judge import wrong_with
from tests.campaigns.mutations import Shapes, Upload, made
from tests.campaigns.watch import Health, memory
from tests.support.pool_fakes import SHAPES, write_sample
from tests.support.serving import Server, app, fake
from ui.parts.errors import UNEXPECTED

PROMISED = (
    *("accepted_wrongly", "sound_refused", "left_over", "hangs_over_5_s", "other_exceptions"),
    *("not_one_sentence", "health_above_1_s", "memory_not_bounded"),
)
STRANGERS = 3
ROUND = 30
"""Uploads between two looks at what is left."""
LEFT_SECONDS = 60.0
HANG, SLOW_HEALTH = 5.0, 1.0
MORE_MIB = 64.0
"""More in the second half than caches fill up with."""
LIMITS = {"max_upload_mb": 1, "trusted_proxies": "127.0.0.1"}


def run(
    root: Path, *, count: int, seed: int, end: float = float("inf"), real: bool = True
) -> Figures:
    """`count` uploads to app.py with the real base's layers, the real encoder and index; not
    `real`: to the page over a real pool alone, with a base of six small layers."""
    campaign = Uploads(root, seed=seed)
    with own_temporary_folder(root / "tmp"), served(root, real=real) as (server, shapes):
        campaign.go(server, shapes, count=count, end=end)
    return campaign.figures


@contextmanager
def served(root: Path, *, real: bool) -> Iterator[tuple[Server, Shapes]]:
    """The server, and the layers of its base."""
    if not real:
        write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
        with fake(root, **LIMITS) as server:
            yield server, SHAPES
        return
    from ramole_core.base.fetch import fetch_base
    from ramole_core.base.shapes import read_shapes

    settings = Settings()
    base = fetch_base(settings.base_model, data_dir=settings.data_dir)
    (root / "data").mkdir()
    shutil.copytree(settings.data_dir / "base", root / "data" / "base", symlinks=True)
    with app(root, data_dir=root / "data", **LIMITS) as server:
        while httpx.get(f"{server.url}/health", timeout=30).json()["status"] == "loading":
            time.sleep(0.5)
        yield server, read_shapes(base)


@contextmanager
def own_temporary_folder(folder: Path) -> Iterator[None]:
    """What the server leaves among temporary files is seen."""
    folder.mkdir()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


class Uploads:
    """One campaign."""

    def __init__(self, root: Path, *, seed: int):
        self.root, self.seed = root, seed
        self.figures = Figures(PROMISED)
        self.lock = threading.Lock()
        self.slowest, self.shapes = 0.0, SHAPES

    def go(self, server: Server, shapes: Shapes, *, count: int, end: float) -> None:
        self.shapes, self.server = shapes, server
        self.known = self.files()
        health, done = Health(server, self.root / "health"), 0
        resident: list[float] = []
        with health, ThreadPoolExecutor(STRANGERS) as strangers:
            callers = [Caller(server) for _ in range(STRANGERS)]
            while done < count and time.monotonic() < end:
                numbers = range(done, min(done + ROUND, count))
                parts = [numbers[n::STRANGERS] for n in range(STRANGERS)]
                list(strangers.map(self.upload_each, callers, parts))
                self.look(f"numbers {numbers.start} to {numbers.stop - 1}")
                done = numbers.stop
                if done >= count / 10 * (len(resident) + 1):
                    resident.append(memory(server, "VmRSS"))
        self.tell(health, resident)

    def upload_each(self, caller: "Caller", numbers: range) -> None:
        for number in numbers:
            kind, upload = made(number, seed=self.seed, shapes=self.shapes)
            began = time.monotonic()
            try:
                told = caller.upload(number, upload)
            except (httpx.HTTPError, ValueError, KeyError) as error:
                told = f"{type(error).__name__}: {error}"
                self.failed("other_exceptions", number, kind, told)
                told = None
            seconds = time.monotonic() - began
            with self.lock:
                self.slowest = max(self.slowest, seconds)
                self.figures.counts["mishaps"] += 1
                self.figures.counts[kind.partition(":")[0]] += 1
                self.figures.counts["taken" if isinstance(told, dict) else "refused"] += 1
            if seconds > HANG:
                self.failed("hangs_over_5_s", number, kind, f"{seconds:.1f} s")
            if isinstance(told, dict):
                self.judge(number, kind, upload)
                caller.remove(number)
            elif told is not None:
                self.hear(number, kind, upload, told)

    def judge(self, number: int, kind: str, upload: Upload) -> None:
        """An upload that was taken."""
        folders = list((self.root / "data" / "uploads").glob(f"*/u{number}"))
        if len(folders) != 1:
            self.failed("left_over", number, kind, f"{len(folders)} folders")
            return
        wrong = wrong_with(folders[0], upload.zipped, shapes=self.shapes)
        if wrong:
            self.failed("accepted_wrongly", number, kind, wrong)

    def hear(self, number: int, kind: str, upload: Upload, told: str) -> None:
        """An upload that was refused."""
        if upload.sound:
            self.failed("sound_refused", number, kind, told)
        if told == UNEXPECTED:
            self.failed("other_exceptions", number, kind, told)
        elif "\n" in told or not told.rstrip().endswith((".", "?")) or not told.isprintable():
            self.failed("not_one_sentence", number, kind, told)

    def look(self, when: str) -> None:
        """Whatever lies there still after LEFT_SECONDS was left over."""
        end = time.monotonic() + LEFT_SECONDS
        while time.monotonic() < end:
            left = self.files() - self.known
            if not left:
                return
            time.sleep(0.05)
        self.figures.failed("left_over", f"{when}: {sorted(left)[:5]}")
        self.known |= left

    def files(self) -> set[str]:
        """Everything that uploads may leave: of the pool, of Gradio's cache, and temporary."""
        return {
            os.path.relpath(os.path.join(folder, name), self.root)
            for place in ("data/uploads", "data/staging", "gradio", "tmp")
            for folder, folders, files in os.walk(self.root / place)  # folders may go meanwhile
            for name in (*files, *(folders if place == "data/staging" else ()))
        }

    def failed(self, name: str, number: int, kind: str, what: str) -> None:
        with self.lock:
            self.figures.failed(name, f"number {number}, {kind}: {what}"[:400])

    def tell(self, health: "Health", resident: list[float]) -> None:
        """What is known at the end."""
        log = self.server.log.read_text(errors="replace")
        for _ in range(log.count("Traceback (most recent call last)")):
            self.figures.failed("other_exceptions", f"the log: {log[:1500]}")
        for seconds in health.seconds:
            if seconds > SLOW_HEALTH:
                self.figures.failed("health_above_1_s", f"{seconds:.2f} s")
        for error in health.errors:
            self.figures.failed("other_exceptions", f"/health: {error}")
        half = resident[len(resident) // 2 - 1 : len(resident) // 2] or resident[:1]
        if resident and resident[-1] - half[0] > MORE_MIB:
            more = f"{half[0]:.0f} MiB after half of them, {resident[-1]:.0f} at the end"
            self.figures.failed("memory_not_bounded", more)
        self.figures.measures = {
            "slowest_upload_s": round(self.slowest, 2),
            "health_asked": len(health.seconds),
            "health_slowest_s": round(max(health.seconds), 3),
            "health_median_s": round(statistics.median(health.seconds), 4),
            "machine_late_s": round(health.late, 3),
            "resident_by_tenths_mib": [round(mib) for mib in resident],
            "resident_highest_mib": round(memory(self.server, "VmHWM")),
        }


class Caller:
    """A stranger: a session and an address of its own for each upload."""

    def __init__(self, server: Server):
        self.url = f"{server.url}/gradio_api"
        self.http = httpx.Client(timeout=300, limits=httpx.Limits(max_keepalive_connections=0))
        config = self.http.get(f"{server.url}/config").json()
        self.numbers = {d["api_name"]: d["id"] for d in config["dependencies"]}

    def upload(self, number: int, upload: Upload) -> dict | str:
        """The adapter as it was taken, or the sentence that refuses it."""
        files = {"files": ("upload.zip", upload.zipped)}
        sent = self.http.post(f"{self.url}/upload", files=files, headers=self.headers(number))
        if sent.status_code in (413, 429, 503):
            return sent.text
        if sent.status_code != 200:
            raise ValueError(f"the upload was answered with {sent.status_code}: {sent.text[:200]}")
        stored = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        return self.call("add_adapter", number, stored, f"u{number}", None)

    def remove(self, number: int) -> dict | str:
        return self.call("remove_adapter", number, f"u{number}")

    def headers(self, number: int) -> dict[str, str]:
        return {"x-forwarded-for": f"203.0.{number // 250 % 250}.{number % 250}"}

    def call(self, name: str, number: int, *data: object) -> dict | str:
        session, headers = f"session{number}", self.headers(number)
        said = {"data": data, "fn_index": self.numbers[name], "session_hash": session}
        self.http.post(f"{self.url}/queue/join", json=said, headers=headers).raise_for_status()
        address = f"{self.url}/queue/data?session_hash={session}"
        with self.http.stream("GET", address, headers=headers) as stream:
            for line in stream.iter_lines():
                told = json.loads(line.removeprefix("data:")) if line else {}
                if told.get("msg") == "process_completed":
                    output = told["output"]
                    return output["data"][0] if told["success"] else output["error"]
        raise ValueError("the stream ended without an answer")
