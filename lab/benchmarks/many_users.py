"""Many browsers at once against one after another: seconds until the last one has its answer.

    python -m lab many_users

app.py on a fresh DATA_DIR that borrows the converted base; 16 visitors in one Chromium, each with a
question of its own, and the same questions by clients of the endpoint.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import numpy as np
import psutil
import typer
from gradio_client import Client
from playwright.sync_api import Page, expect

from lab import harness
from lab.benchmarks.page import Started, fresh_folder, page_on
from tests.support.browser import chromium_running, visits
from ui.ask.answer import MEASURING

Start = Callable[[], Callable[[], Sequence[float]]]
"""Asks one question; what it returns waits for the answer, and returns when it was asked and when
it was there, in seconds, and of a page when its effects were."""
TASKS = (
    "Turn these triples into text: {} area riverside; {} food Italian; {} customer rating high",
    "Fix the capital letters in the following text: in may {} opened a second house in oslo, and "
    "the mayor of bergen came with her brother to see it.",
    "Split this sentence into simpler ones: {}, built in 1902 by two brothers from Turin, "
    "was sold last spring and is now a library with a garden on its roof.",
    "Write an SQL query: how many rooms has {} on each floor? Tables: rooms(id, house, floor)",
)
WATCHED = """(measuring) => {
  const asked = Date.now() / 1000, times = [];
  window.answered = new Promise((over, fail) => {
    let fresh = false;
    const look = () => {
      const whole = document.querySelector("#timing dl") !== null;
      fresh ||= !whole;
      const there = whole || document.querySelector("#notice").innerText.includes(measuring);
      if (!fresh || !there) return;
      times[0] ??= Date.now() / 1000;
      if (!whole) return;
      changes.disconnect();
      over([asked, times[0], Date.now() / 1000]);
    };
    const changes = new MutationObserver(look);
    changes.observe(document.body, { subtree: true, childList: true, characterData: true });
    setTimeout(fail, 600000, "No answer came within ten minutes.");
  });
}"""
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
    return {"cores": os.cpu_count(), **found, "by_clients_of_the_endpoint": clients}


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
        each = np.array([start()() for start in starts])
        apart.append((each[:, 1:] - each[:, :1]).sum(0))
        before = cpu_seconds(server)
        each = np.array([wait() for wait in [start() for start in starts]])
        together.append(each[:, 1:].max(0) - each[:, 0].min())
        after = cpu_seconds(server)
        spent.append({who: round(after[who] - before[who], 2) for who in after})
    found, *effects = map(_ratios, np.transpose(apart), np.transpose(together))
    return {
        **found,
        "cpu_seconds_at_once": spent,
        **({"with_effects": effects[0]} if effects else {}),
    }


def _ratios(apart: np.ndarray, together: np.ndarray) -> dict[str, object]:
    ratios = np.round(apart / together, 2).tolist()
    return {
        "one_after_another_s": apart.round(2).tolist(),
        "at_once_s": together.round(2).tolist(),
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

    def start(client: Client, prompt: str) -> Callable[[], Sequence[float]]:
        asked, job = time.time(), client.submit(prompt, max_new_tokens=tokens, api_name="/ask")
        there: list[float] = []
        job.add_done_callback(lambda _: there.append(time.time()))

        def wait() -> Sequence[float]:
            job.result()
            return asked, there[0]

        return wait

    starts = [partial(start, *one) for one in zip(clients, prompts, strict=True)]
    starts[0]()()  # waits for the model
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


def _ask(page: Page) -> Callable[[], Sequence[float]]:
    page.evaluate(WATCHED, MEASURING)
    page.locator("#prompt textarea").press("Enter")
    return lambda: page.evaluate("() => window.answered")


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
