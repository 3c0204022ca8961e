"""`python -m tests.recipe_session ROOT BLOCKS`: the blocks of docs/recipes.md, one after the other.

They share one process, so that the model is loaded once: it has the pool of the first block, the
page of that very pool, and a Hub. ROOT is where the reader is; what each block printed, or how it
failed, is written as a line of JSON.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.serving import REPOSITORY, free_port
from tests.test_pool_hub import Hub

PAGE = "http://127.0.0.1:7860"
"""What stands in the blocks; another port is taken, as this one may be in use."""


def hub(folder: Path) -> None:
    """A Hub that has this adapter, behind HF_ENDPOINT."""
    Hub.repositories = {"your-name/your-lora": {p.name: p.read_bytes() for p in folder.iterdir()}}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"


def page_of(ramole) -> str:
    """The page of this very pool, once it answers; its address."""
    from ui import build
    from ui.model.loading import loading_of
    from ui.serve import launch

    url = launch(build(ramole), ramole).rstrip("/")
    while not loading_of(ramole).ready:
        time.sleep(0.05)
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
        exec(compile(block, "recipe", "exec"), names)
    return printed.getvalue()


def main() -> None:
    root, blocks = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8"))
    os.environ["RAMOLE_PORT"] = str(free_port())
    sys.path.insert(0, str(REPOSITORY))
    os.chdir(root)
    hub(root / "hub" / "your-lora")
    names: dict = {"__name__": "__main__"}
    out, url = sys.stdout, ""
    for language, block in blocks:
        began, failed, printed = time.monotonic(), "", ""
        try:
            if PAGE in block and not url:
                with contextlib.redirect_stdout(sys.stderr):
                    url = page_of(names["ramole"])
            printed = run(language, block.replace(PAGE, url), names)
        except Exception:
            failed = traceback.format_exc()
        seconds = round(time.monotonic() - began, 1)
        said = {"printed": printed, "failed": failed, "seconds": seconds}
        print(json.dumps(said), file=out, flush=True)
    out.flush()
    os._exit(0)  # threads of the server are in the way of an ordinary end


if __name__ == "__main__":
    main()
