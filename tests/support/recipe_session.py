"""`python -m tests.support.recipe_session ROOT...`: blocks of pages of docs, one after another.

Each ROOT is where a reader is, with the blocks that he reads in `blocks.json`; all share a process
and a Hub, those of one ROOT their names too, a `Ramole` for each kind of settings, and the page of
the last one. What each block printed, or how it failed, is a line of JSON.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from unittest.mock import patch

import httpx

from tests.support.hub_server import HubServer, Repository, serving
from tests.support.serving import REPOSITORY, free_port

if TYPE_CHECKING:
    from ramole_core import Ramole, Settings

PAGE = "http://127.0.0.1:7860"
"""What stands in the blocks; another port is taken, as this one may be in use."""


class OneAdapter(HubServer):
    """A Hub that lists the adapter of this folder for every base."""

    def __init__(self, folder: Path):
        super().__init__()
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.repositories["your-name/your-lora"] = Repository(files)

    def listing(self, base: str) -> list[tuple[str, Repository]]:
        return list(self.repositories.items())


class Opened:
    """In `Ramole`'s place in the blocks: what a block opened is open for the next that opens the
    same."""

    def __init__(self):
        self._ramole = None
        self._close: Callable[[], None] = lambda: None

    def __call__(self, settings: "Settings") -> "Ramole":
        from ramole_core.ramole import Ramole

        if self._ramole is None or self._ramole.settings != settings:
            self._close()
            self._ramole = Ramole(settings)
            self._close, self._ramole.close = self._ramole.close, lambda: None
        return self._ramole


OPENED = Opened()


def page_of(names: dict) -> str:
    """The page of the Ramole that the blocks opened last, once it answers; its address."""
    from ui import build
    from ui.model.loading import loading_of
    from ui.serve import launch

    ramole = names["ramole"]
    url = launch(build(ramole), ramole).rstrip("/")
    while not loading_of(ramole).ready:
        time.sleep(0.05)
    # Gradio's client gives the page five seconds, in which a busy machine does not make its first.
    httpx.get(f"{url}/config", timeout=120).raise_for_status()
    return url


def run(language: str, block: str, names: dict) -> str:
    """What a block prints; raises where it fails."""
    if language == "bash":
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr}")
        return done.stdout
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        with patch("ramole_core.Ramole", OPENED):
            exec(compile(block, "recipe", "exec"), names)
    return printed.getvalue()


def read(root: Path, out: TextIO) -> None:
    """Run the blocks of one reader."""
    os.environ["RAMOLE_PORT"] = str(free_port())
    os.environ["RAMOLE_DATA_DIR"] = str(root / "data")
    os.environ["RAMOLE_ADAPTERS_DIR"] = str(root / "adapters")
    os.chdir(root)
    names: dict = {"__name__": "__main__"}
    url = ""
    for language, block in json.loads((root / "blocks.json").read_text("utf-8")):
        began, failed, printed = time.monotonic(), "", ""
        try:
            if PAGE in block and not url:
                with contextlib.redirect_stdout(sys.stderr):
                    url = page_of(names)
            printed = run(language, block.replace(PAGE, url), names)
        except Exception:
            failed = traceback.format_exc()
        seconds = round(time.monotonic() - began, 1)
        said = {"printed": printed, "failed": failed, "seconds": seconds}
        print(json.dumps(said), file=out, flush=True)


def main() -> None:
    roots, out = [Path(root) for root in sys.argv[1:]], sys.stdout
    sys.path.insert(0, str(REPOSITORY))
    with serving(OneAdapter(roots[0] / "hub" / "your-lora")) as hub:
        os.environ["HF_ENDPOINT"] = hub.url
        for root in roots:
            read(root, out)
    out.flush()
    os._exit(0)  # threads of the server are in the way of an ordinary end


if __name__ == "__main__":
    main()
