"""What the running page costs: start, first token, retrieval and memory, measured from outside.

`python docs/budget.py` starts app.py as `make run` does, on a fresh DATA_DIR that borrows the
converted base model, asks through the public endpoints, and writes results/budget.json.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from gradio_client import Client

REPOSITORY = Path(__file__).parents[1]
METHODS = ("ramole", "ramole_plus")
PROMPTS = (
    "Is this headline clickbait? 12 lamps that will change your evenings\nOPTIONS:\n- no\n- yes",
    "Write an SQL query: how many boats were built after 1990? Tables: boats(id, name, year)",
    "Fix the capital letters in the following text: in march we flew from lima to oslo.",
)


def measure(repeats: int) -> dict[str, object]:
    """Start the page, and the figures of `repeats` rounds over the prompts, in seconds and MiB."""
    sys.path.insert(0, str(REPOSITORY))
    from ramole_core.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "base").symlink_to(Settings().data_dir / "base")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        env = {**os.environ, "RAMOLE_DATA_DIR": folder, "RAMOLE_PORT": str(port)}
        began = time.perf_counter()
        page = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=env)
        try:
            return _ask(f"http://127.0.0.1:{port}", page.pid, began, repeats)
        finally:
            page.terminate()
            page.wait()


def _ask(url: str, pid: int, began: float, repeats: int) -> dict[str, object]:
    listening = _wait(url, lambda health: True, began)
    loaded = _wait(url, lambda health: health["model"]["ready"], began)
    client = Client(url, verbose=False)
    for method in METHODS:
        client.predict(PROMPTS[0], method=method, max_new_tokens=4, api_name="/ask")
    first: dict[str, list[float]] = {method: [] for method in METHODS}
    whole: dict[str, list[float]] = {method: [] for method in METHODS}
    found, peak = [], 0.0
    for prompt in PROMPTS * repeats:
        asked = time.perf_counter()
        client.predict(prompt, api_name="/retrieve")
        found.append(time.perf_counter() - asked)
        for method in METHODS:
            asked = time.perf_counter()
            job = client.submit(prompt, method=method, max_new_tokens=16, api_name="/ask")
            next(text for text, _ in job if text)  # before it only a place in the queue
            first[method].append(time.perf_counter() - asked)
            job.result()
            whole[method].append(time.perf_counter() - asked)
        peak = max(peak, psutil.Process(pid).memory_info().rss / 2**20)
    return {
        "listening_s": listening,
        "loaded_s": loaded,
        "first_token_s": {method: _spread(each) for method, each in first.items()},
        "answer_of_at_most_16_tokens_s": {method: _spread(each) for method, each in whole.items()},
        "retrieve_over_http_s": _spread(found),
        "resident_mib": peak,
    }


def _wait(url: str, ready, began: float) -> float:
    while time.perf_counter() - began < 300:
        try:
            if ready(httpx.get(f"{url}/health", timeout=5).json()):
                return time.perf_counter() - began
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("The page was not ready within 300 s.")


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    figures = {
        "command": f"python docs/budget.py --repeats {options.repeats}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        **measure(options.repeats),
    }
    (REPOSITORY / "results").mkdir(exist_ok=True)
    (REPOSITORY / "results/budget.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
