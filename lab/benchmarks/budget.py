"""What the running page costs: start, first token, retrieval and memory, measured from outside.

    python -m lab budget

app.py is started as `make run` does, on a fresh DATA_DIR that borrows the converted base model, and
once more on what that start left; it is asked through the public endpoints, by 16 clients at once
beside the engine alone.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated

import httpx
import psutil
import typer
from gradio_client import Client

from lab import harness
from lab.benchmarks.page import fresh_folder, has_model, page_on
from ramole_core.settings import load_settings

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

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
    with fresh_folder() as folder:
        with page_on(folder) as page:
            listening, loaded = page.wait(), page.wait(has_model)
        with page_on(folder) as page:
            again = page.wait(has_model)
            found = _ask(page.url, page.pid, repeats) | _by_many(page.url, repeats)
    return {"listening_s": listening, "loaded_s": loaded, "loaded_again_s": again, **found}


def _by_many(url: str, repeats: int) -> dict[str, object]:
    """Tokens a second of 16 clients at once, each on a connection that it keeps, and of the engine
    in a process of its own that is given the same questions, in turns."""
    rates: dict[str, list[float]] = {"endpoint": [], "engine": []}
    clients = [httpx.Client(base_url=url, timeout=300) for _ in range(CLIENTS)]
    with fresh_folder() as folder, ExitStack() as opened:
        alone = opened.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        threads = opened.enter_context(ThreadPoolExecutor(CLIENTS))
        for client in clients:
            opened.enter_context(client)
        for turn in range(repeats + 1):  # the first is not counted
            prompts = [f"{many_prompt(n)} ({turn})" for n in range(CLIENTS)]
            rates["engine"].append(alone.submit(engine_rate, str(folder), prompts).result())
            began = time.perf_counter()
            made = sum(threads.map(_completed, clients, prompts))
            rates["endpoint"].append(made / (time.perf_counter() - began))
    shares = [a / b for a, b in zip(rates["endpoint"][1:], rates["engine"][1:], strict=True)]
    return {
        "clients": CLIENTS,
        "endpoint_tokens_per_second": harness.spread(rates["endpoint"][1:]),
        "engine_tokens_per_second": harness.spread(rates["engine"][1:]),
        "endpoint_by_engine": harness.spread(shares),
    }


@cache
def _engine(data_dir: str) -> "Ramole":
    """The engine of this process, without a page."""
    from ramole_core.ramole import Ramole

    ramole = Ramole(load_settings(data_dir=data_dir))
    ramole.load()
    return ramole


def engine_rate(data_dir: str, prompts: list[str]) -> float:
    """Tokens a second of this process's engine for these prompts at once."""
    from ramole_core.request import Request

    plain = Request("-", method="ramole", max_new_tokens=MANY_TOKENS, trace=True)
    engine, began = _engine(data_dir), time.perf_counter()
    answers = engine.generate([replace(plain, prompt=prompt) for prompt in prompts])
    return sum(answer.new_tokens for answer in answers) / (time.perf_counter() - began)


def many_prompt(number: int) -> str:
    """A question whose answer is long."""
    name = ("the harbour", "a lighthouse", "an orchard", "the night train")[number % 4]
    return f"Write a long story, number {number}, about {name}, a storm and three old friends."


def _streamed(client: httpx.Client, prompt: str, **said: object) -> Iterator[dict]:
    """The parts of a streamed answer."""
    asked = {"messages": [{"role": "user", "content": prompt}], "stream": True, **said}
    with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])


def _completed(client: httpx.Client, prompt: str) -> int:
    """The tokens of a streamed answer."""
    counted = {"max_tokens": MANY_TOKENS, "stream_options": {"include_usage": True}}
    parts = list(_streamed(client, prompt, model="ramole", **counted))
    return next(part["usage"]["completion_tokens"] for part in reversed(parts) if part.get("usage"))


def _first_token(client: httpx.Client, prompt: str) -> float:
    """Seconds until the first token of a streamed answer, which is read to its end."""
    began, first = time.perf_counter(), None
    for part in _streamed(client, prompt, model="ramole_plus", max_tokens=4):
        choices = part["choices"]
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
        peak = max(peak, process.memory_info().rss / 2**20)
    streamed = []
    for n in range(5 * repeats):
        with httpx.Client(base_url=url, timeout=300) as once:  # the connection is part of it
            streamed.append(_first_token(once, f"{FIFTY} ({n})"))
    return {
        "first_token_of_50_streamed_s": harness.spread(streamed),
        "resident_after_one_answer_mib": after_one,
        "first_token_s": {method: harness.spread(each) for method, each in first.items()},
        "retrieve_over_http_s": harness.spread(found),
        "retrieve_by_gradio_client_s": harness.spread(by_client),
        "resident_mib": peak,
    }


def main(
    repeats: Annotated[int, typer.Option(help="Rounds over the prompts.")] = 4,
    out: harness.Out = harness.RESULTS / "budget.json",
) -> None:
    """Measure, print, and write the file."""
    results = harness.Results(out)
    results.write(**measure(repeats))
    print(json.dumps(results.held, indent=1))
