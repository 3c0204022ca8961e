"""What the running page costs: start, first token, retrieval and memory, measured from outside.

`python -m lab.benchmarks.budget`
starts app.py as `make run` does, on a fresh DATA_DIR that borrows the
converted base model, and once more on what that start left; asks through the public endpoints, 16
clients at once beside the engine alone; and writes results/budget.json.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from gradio_client import Client

from ramole_core.settings import REPOSITORY

METHODS = ("ramole", "ramole_plus")
PROMPTS = (
    "Is this headline clickbait? 12 lamps that will change your evenings\nOPTIONS:\n- no\n- yes",
    "Write an SQL query: how many boats were built after 1990? Tables: boats(id, name, year)",
    "Fix the capital letters in the following text: in march we flew from lima to oslo.",
)
CLIENTS, MANY_TOKENS = 16, 64
FIFTY = (
    "Turn these triples into text: Blue Spice area riverside; Blue Spice food Italian; Blue Spice "
    "customer rating high; Blue Spice near Rainbow Vegetarian Cafe; Blue Spice price range "
    "moderate; Blue Spice family friendly yes"
)
"""About fifty tokens."""


def measure(repeats: int) -> dict[str, object]:
    """Start the page, and the figures of `repeats` rounds over the prompts, in seconds and MiB."""
    from ramole_core.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "base").symlink_to(Settings().data_dir / "base")
        with _started(folder) as (url, _, began):
            listening = _wait(url, lambda health: True, began)
            loaded = _wait(url, lambda health: health["model"]["ready"], began)
        with _started(folder) as (url, pid, began):
            again = _wait(url, lambda health: health["model"]["ready"], began)
            found = _ask(url, pid, repeats)
            found |= _by_many(url, folder, repeats)
    return {"listening_s": listening, "loaded_s": loaded, "loaded_again_s": again, **found}


@contextmanager
def _started(folder: str) -> Iterator[tuple[str, int, float]]:
    """The page's address and process, and when it was started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "RAMOLE_DATA_DIR": folder, "RAMOLE_PORT": str(port)}
    began = time.perf_counter()
    page = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=env)
    try:
        yield f"http://127.0.0.1:{port}", page.pid, began
    finally:
        page.terminate()
        page.wait()


def _by_many(url: str, folder: str, repeats: int) -> dict[str, object]:
    """Tokens a second of 16 clients at once, each on a connection that it keeps, and of the engine
    in a process of its own that is given the same questions, in turns."""
    root = Path(folder) / "alone"
    root.mkdir()
    (root / "base").symlink_to((Path(folder) / "base").resolve())
    env = {**os.environ, "RAMOLE_DATA_DIR": str(root)}
    alone = subprocess.Popen(
        [sys.executable, "-m", "lab.benchmarks.budget", "--engine"],
        cwd=REPOSITORY,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert alone.stdin is not None and alone.stdout is not None
    rates: dict[str, list[float]] = {"endpoint": [], "engine": []}
    clients = [httpx.Client(base_url=url, timeout=300) for _ in range(CLIENTS)]
    threads = ThreadPoolExecutor(CLIENTS)
    try:
        for turn in range(repeats + 1):  # the first is not counted
            prompts = [f"{many_prompt(n)} ({turn})" for n in range(CLIENTS)]
            alone.stdin.write(json.dumps(prompts) + "\n")
            alone.stdin.flush()
            rates["engine"].append(float(alone.stdout.readline()))
            began = time.perf_counter()
            made = sum(threads.map(_completed, clients, prompts))
            rates["endpoint"].append(made / (time.perf_counter() - began))
    finally:
        threads.shutdown()
        for client in clients:
            client.close()
        alone.terminate()
        alone.wait()
    shares = [a / b for a, b in zip(rates["endpoint"][1:], rates["engine"][1:], strict=True)]
    return {
        "clients": CLIENTS,
        "endpoint_tokens_per_second": _spread(rates["endpoint"][1:]),
        "engine_tokens_per_second": _spread(rates["engine"][1:]),
        "endpoint_by_engine": _spread(shares),
    }


def many_prompt(number: int) -> str:
    """A question whose answer is long."""
    name = ("the harbour", "a lighthouse", "an orchard", "the night train")[number % 4]
    return f"Write a long story, number {number}, about {name}, a storm and three old friends."


def _completed(client: httpx.Client, prompt: str) -> int:
    """The tokens of a streamed answer."""
    said = {
        "model": "ramole",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MANY_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    made = 0
    with client.stream("POST", "/v1/chat/completions", json=said) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {") and (usage := json.loads(line[6:]).get("usage")):
                made = usage["completion_tokens"]
    return made


def engine_alone() -> None:
    """For each line of prompts on standard input: tokens a second, on standard output."""
    from ramole_core import Ramole, Request

    with Ramole() as ramole:
        ramole.load()
        for line in sys.stdin:
            requests = [
                Request(prompt, method="ramole", max_new_tokens=MANY_TOKENS, trace=True)
                for prompt in json.loads(line)
            ]
            began = time.perf_counter()
            made = sum(answer.new_tokens for answer in ramole.generate(requests))
            print(made / (time.perf_counter() - began), flush=True)


def _first_token(url: str, prompt: str) -> float:
    """Seconds until the first token of a streamed answer, which is read to its end."""
    said = {
        "model": "ramole_plus",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 4,
        "stream": True,
    }
    began, first = time.perf_counter(), None
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=said, timeout=300) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                if first is None and choices and choices[0]["delta"].get("content"):
                    first = time.perf_counter() - began
    if first is None:
        raise SystemExit(f"No token came for {prompt!r}.")
    return first


def _retrieve(url: str, prompt: str) -> float:
    """Seconds until plain HTTP has the nearest adapters."""
    route, began = f"{url}/gradio_api/call/retrieve", time.perf_counter()
    event = httpx.post(route, json={"data": [prompt, 3, None]}).json()["event_id"]
    if "event: complete" not in httpx.get(f"{route}/{event}").text:
        raise SystemExit(f"Nothing was found for {prompt!r}.")
    return time.perf_counter() - began


def _ask(url: str, pid: int, repeats: int) -> dict[str, object]:
    client = Client(url, verbose=False)
    process = psutil.Process(pid)
    client.predict(PROMPTS[0], method="ramole_plus", max_new_tokens=16, api_name="/ask")
    after_one = process.memory_info().rss / 2**20
    for method in METHODS:
        client.predict(PROMPTS[0], method=method, max_new_tokens=4, api_name="/ask")
    first: dict[str, list[float]] = {method: [] for method in METHODS}
    whole: dict[str, list[float]] = {method: [] for method in METHODS}
    found, by_client, peak = [], [], 0.0
    for prompt in PROMPTS * repeats:
        found.append(_retrieve(url, prompt))
        asked = time.perf_counter()
        client.predict(f"{prompt} (again)", api_name="/retrieve")  # which looks every 50 ms
        by_client.append(time.perf_counter() - asked)
        for method in METHODS:
            asked = time.perf_counter()
            job = client.submit(prompt, method=method, max_new_tokens=16, api_name="/ask")
            next(text for text, _ in job if text)  # before it only a place in the queue
            first[method].append(time.perf_counter() - asked)
            job.result()
            whole[method].append(time.perf_counter() - asked)
        peak = max(peak, process.memory_info().rss / 2**20)
    streamed = [_first_token(url, f"{FIFTY} ({n})") for n in range(5 * repeats)]
    return {
        "first_token_of_50_streamed_s": _spread(streamed),
        "resident_after_one_answer_mib": after_one,
        "first_token_s": {method: _spread(each) for method, each in first.items()},
        "answer_of_at_most_16_tokens_s": {method: _spread(each) for method, each in whole.items()},
        "retrieve_over_http_s": _spread(found),
        "retrieve_by_gradio_client_s": _spread(by_client),
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
    parser.add_argument("--engine", action="store_true", help="the engine alone, by standard input")
    options = parser.parse_args()
    if options.engine:
        engine_alone()
        return
    figures = {
        "command": f"python -m lab.benchmarks.budget --repeats {options.repeats}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        **measure(options.repeats),
    }
    (REPOSITORY / "results").mkdir(exist_ok=True)
    (REPOSITORY / "results/budget.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
