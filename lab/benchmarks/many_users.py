"""Many browsers at once against one after another: seconds until the last one has its answer.

    python -m lab many_users

app.py on a fresh DATA_DIR that borrows the converted base; 16 visitors in one Chromium, each with a
question of its own, and the same questions by clients of the endpoint.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import psutil
import typer
from gradio_client import Client
from playwright.sync_api import Page, expect

from lab import harness
from lab.benchmarks.page import Started, fresh_folder, page_on
from tests.browser import chromium_running, visits

Start = Callable[[], Callable[[], object]]
"""Asks one question; what it returns waits for the answer."""
TASKS = (
    "Turn these triples into text: {} area riverside; {} food Italian; {} customer rating high",
    "Fix the capital letters in the following text: in may {} opened a second house in oslo, and "
    "the mayor of bergen came with her brother to see it.",
    "Split this sentence into simpler ones: {}, built in 1902 by two brothers from Turin, "
    "was sold last spring and is now a library with a garden on its roof.",
    "Write an SQL query: how many rooms has {} on each floor? Tables: rooms(id, house, floor)",
)
NAMES = ("The Blue Lamp", "Villa Nore", "The Old Mint", "Cafe Anker")


def measure(users: int, repeats: int, tokens: int, quantization: str) -> dict[str, object]:
    """The seconds of both ways, in turns, and how many times faster together is."""
    prompts = [
        TASKS[n % len(TASKS)].replace("{}", NAMES[n // len(TASKS) % len(NAMES)])
        for n in range(users)
    ]
    with (
        fresh_folder() as folder,
        chromium_running() as browser,
        page_on(folder, quantization=quantization) as server,
        visits(browser) as visit,
    ):
        server.wait()
        clients = _by_clients(server, prompts, repeats, tokens)
        pages = [visit(server.url) for _ in range(users)]
        found = by_browsers(pages, prompts, repeats, tokens, server.pid)
    return {**found, "by_clients_of_the_endpoint": clients}


def by_browsers(
    pages: Sequence[Page], prompts: Sequence[str], repeats: int, tokens: int, server: int
) -> dict[str, object]:
    """Each open page asks its prompt; `server` is the page's process."""
    expect(pages[0].locator("#status .ready")).to_be_visible(timeout=240_000)
    for page, prompt in zip(pages, prompts, strict=True):
        _prepare(page, prompt, tokens)
    starts = [lambda page=page: _ask(page) for page in pages]
    starts[0]()()
    return take_turns(starts, repeats, server)


def take_turns(starts: Sequence[Start], repeats: int, server: int) -> dict[str, object]:
    """Seconds of all questions one after another, and of all at once, in turns; with the processor
    time of the latter in the server and in browsers."""
    apart, together, spent = [], [], []
    for _ in range(repeats):
        began = time.perf_counter()
        for start in starts:
            start()()
        apart.append(time.perf_counter() - began)
        before, began = cpu_seconds(server), time.perf_counter()
        for wait in [start() for start in starts]:
            wait()
        together.append(time.perf_counter() - began)
        after = cpu_seconds(server)
        spent.append({who: round(after[who] - before[who], 2) for who in after})
    ratios = [round(a / b, 2) for a, b in zip(apart, together, strict=True)]
    return {
        "one_after_another_s": [round(s, 2) for s in apart],
        "at_once_s": [round(s, 2) for s in together],
        "cpu_seconds_at_once": spent,
        "times_faster": ratios,
        "median_times_faster": statistics.median(ratios),
    }


def cpu_seconds(server: int) -> dict[str, float]:
    """Processor time that the server and the browsers of this process have spent so far."""
    serving = psutil.Process(server)
    browsers = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    return {
        "server": _spent([serving, *serving.children(recursive=True)]),
        "browsers": _spent(browsers),
    }


def _spent(processes: Sequence[psutil.Process]) -> float:
    """User's and system's seconds of the processes."""
    times = [one.cpu_times() for one in processes]
    return sum(one.user + one.system for one in times)


def _by_clients(
    server: Started, prompts: list[str], repeats: int, tokens: int
) -> dict[str, object]:
    """The same questions without browsers, which have work of their own: by `/ask`."""
    clients = [Client(server.url, verbose=False) for _ in prompts]
    options = {"max_new_tokens": tokens, "api_name": "/ask"}
    clients[0].predict(prompts[0], **options)  # waits for the model
    starts = [
        lambda client=client, prompt=prompt: client.submit(prompt, **options).result
        for client, prompt in zip(clients, prompts, strict=True)
    ]
    found = take_turns(starts, repeats, server.pid)
    for client in clients:
        client.close()
    return found


def _prepare(page: Page, prompt: str, tokens: int) -> None:
    page.locator("#beside-box input").uncheck()
    page.locator("#more button").first.click()
    page.get_by_label("Most new tokens").first.fill(str(tokens))
    page.get_by_label("Most new tokens").first.press("Tab")
    page.locator("#prompt textarea").fill(prompt)


def _ask(page: Page) -> Callable[[], None]:
    page.locator("#prompt textarea").press("Enter")
    timing = page.locator("#timing dl")
    expect(timing).to_have_count(0)
    return lambda: expect(timing).to_be_attached(timeout=240_000)  # in a part that is closed


def main(
    users: Annotated[int, typer.Option(help="Visitors at once.")] = 16,
    repeats: Annotated[int, typer.Option(help="Turns of both ways.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    quantization: Annotated[str, typer.Option(help="How the base is held.")] = "int4",
    out: harness.Out = harness.RESULTS / "many_users.json",
) -> None:
    """Measure, print, and write the file."""
    said = {"users": users, "most_tokens": tokens, "quantization": quantization}
    results = harness.Results(out, said)
    results.write(**measure(users, repeats, tokens, quantization))
    print(json.dumps(results.held, indent=1))
