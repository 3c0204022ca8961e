"""A server in a process of its own, as a visitor meets it: the fake system's page, or app.py.

`python -m tests.support.serving ROOT` serves the tab Pool and the endpoints over
`PoolRamole(ROOT)`. Settings come from RAMOLE_* as always, and the variables in `SECONDS` set times
of the page. The model is not there before the file GATE is; with CLOCK, a file, its bytes are the
seconds of the clock by which sessions are silent; with HEARD, a folder, words wait for their
reader; with CLOSES_LATE Gradio's own end waits for every connection, and not for five seconds.
"""

import fcntl
import hashlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from ramole_core.settings import Settings
from tests.support import warm_server
from tests.support.heard import Heard
from tests.support.started import started
from tests.support.warm_server import Forked
from tests.support.workers import REPOSITORY


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen | Forked
    log: Path
    """What it said."""
    first_answer: float
    """Seconds from the start of the process to the first answer."""


def running(
    command: list[str], root: Path, *, seconds: float = 400, **settings
) -> AbstractContextManager[Server]:
    """Of a command: start, wait until /health answers, and end it by SIGTERM."""

    def start(environment: dict[str, str], log: Path) -> subprocess.Popen:
        with log.open("wb") as output:
            return subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    return _alive(start, root, seconds=seconds, **settings)


def fake_page(
    module: str,
    root: Path,
    *arguments: str,
    variables: Mapping[str, object] | None = None,
    under: str = "",
    **settings,
) -> AbstractContextManager[Server]:
    """A page of the tests over the fake system, with its `variables`. `under`: the path that a
    proxy puts before its own."""
    said = {name.upper(): str(value) for name, value in (variables or {}).items()}
    said |= {"GRADIO_ROOT_PATH": under} if under else {}

    def start(environment: dict[str, str], log: Path) -> Forked:
        return warm_server.start(module, list(arguments), environment=environment | said, log=log)

    return _alive(start, root, seconds=400, **settings)


@contextmanager
def _alive(
    start: Callable[[dict[str, str], Path], subprocess.Popen | Forked],
    root: Path,
    *,
    seconds: float,
    **settings,
) -> Iterator[Server]:
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = root / f"server-{port}.log"
    said = {f"RAMOLE_{name.upper()}": str(value) for name, value in settings.items()}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAMOLE_", "GRADIO_"))}
    quick = {"OMP_NUM_THREADS": "1", "GRADIO_HEARTBEAT_INTERVAL": "1"}  # a session's end is seen
    quick["PYTHONFAULTHANDLER"] = "1"
    cache = {"GRADIO_TEMP_DIR": str(root / "gradio")}  # which others' uploads do not fill
    environment = {**kept, **quick, **cache, "RAMOLE_PORT": str(port), **said}
    began = time.monotonic()
    started("server")
    process = start(environment, log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health", process, log, seconds=seconds)
        yield Server(url, process, log, time.monotonic() - began)
    except BaseException:
        process.send_signal(signal.SIGABRT)  # where every thread is
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        print(log.read_text(errors="replace")[-8000:])
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fake(root: Path, **settings):
    """The fake system's page, running."""
    return fake_page("tests.support.serving", root, str(root), **settings)


def app(root: Path, **settings):
    """app.py, running."""
    return running([sys.executable, "app.py"], root, **settings)


def second_start(data_dir: Path) -> Path:
    """Make `data_dir`, which has the real base, what it answers usually and the index of the sample
    pool, as at a second start: all are kept for this user, known by their checksums."""
    data_dir.mkdir(exist_ok=True)
    for name in ("base", "reference"):
        kept = Settings().data_dir / name
        kept.mkdir(parents=True, exist_ok=True)
        (data_dir / name).symlink_to(kept, target_is_directory=True)
    shutil.copytree(sample_index() / "chroma", data_dir / "chroma", dirs_exist_ok=True)
    return data_dir


def sample_index() -> Path:
    """A data folder with the index of the sample pool, made by whoever needs it first; making it
    embeds 420 examples, seven seconds of a core."""
    from ramole_core import Ramole

    settings = Settings()
    files = sorted(settings.adapters_dir.glob("*/*.json*"))
    facts = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    kept = settings.data_dir / "sample_index" / facts
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            with TemporaryDirectory(dir=kept.parent) as made:
                with Ramole(Settings(data_dir=Path(made))) as ramole:
                    ramole.retrieve("a prompt")
                Path(made).rename(kept)
                Path(made).mkdir()  # for who takes it away
    return kept


def client_of(url: str, **said):
    """A client of Gradio's that waits a minute for each answer; httpx would wait five seconds."""
    from gradio_client import Client

    return Client(url, verbose=False, httpx_kwargs={"timeout": 60}, **said)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(holds: Callable[[], object], *, seconds: float = 400, pause: float = 0.02) -> None:
    """Wait until it holds, which is looked at again after each `pause`, or fail."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not come within {seconds} s"
        time.sleep(pause)


def wait_for(url: str, process: subprocess.Popen | Forked, log: Path, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"The server ended with {process.returncode}:\n{log.read_text()}")
        try:
            if httpx.get(url, timeout=20).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"No answer within {seconds} s:\n{log.read_text()}")


SECONDS = {
    "BEAT_SECONDS": "ui.session.presence",
    "IDLE_SECONDS": "ui.session.quota",
    "GRACE_SECONDS": "ui.session.leaving",
    "SWEEP_SECONDS": "ui.serve",
    "TIDY_SECONDS": "ui.serve",
    "TOKEN_SECONDS": "ui.middleware.logins",
    "TRY_SECONDS": "ui.session.accounts",
    "TRY_UNKNOWN_SECONDS": "ui.session.accounts",
    "WAIT_SECONDS": "ui.middleware.crowds",
    "HEAD_SECONDS": "ui.middleware.connections",
    "READ_SECONDS": "ui.middleware.connections",
    "MAX_WAIT_SECONDS": "ui.middleware.refusal",
}
"""Variables of the page's times, each with the module that has it."""


def _close_late(server) -> None:
    server.should_exit = True
    server.thread.join()


def main() -> None:
    import gradio as gr
    from gradio import http_server

    from ramole_core import keep_few_heaps
    from tests.support.pool_fakes import PoolRamole
    from ui import serve as served
    from ui.api import endpoints as api
    from ui.pool import tab as pool_tab
    from ui.session import presence, quota
    from ui.watch.quiet import quiet_logs

    keep_few_heaps()
    quiet_logs()
    root = Path(sys.argv[1])
    if "CLOSES_LATE" in os.environ:
        http_server.Server.close = _close_late
    for name, seconds in {"GRACE_SECONDS": 4, "SWEEP_SECONDS": 1, **os.environ}.items():
        if name in SECONDS:
            setattr(importlib.import_module(SECONDS[name]), name, float(seconds))
    if "CLOCK" in os.environ:
        clock = Path(os.environ["CLOCK"])
        quota.Presence = partial(presence.Presence, lambda: float(clock.stat().st_size))
    ramole = PoolRamole(root, gate=Path(os.environ["GATE"]) if "GATE" in os.environ else None)
    ramole.heard = Heard(Path(os.environ["HEARD"])) if "HEARD" in os.environ else None
    with gr.Blocks(title="RAMoLE") as page:
        with gr.Tabs():
            pool_tab.tab(ramole)
        api.endpoints(ramole)
    served.serve(page, ramole)
    ramole.close()


if __name__ == "__main__":
    main()
