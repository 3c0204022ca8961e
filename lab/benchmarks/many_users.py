"""Many browsers at once against one after another: seconds until the last one has its answer.

`python -m lab.benchmarks.many_users`
starts app.py on a fresh DATA_DIR that borrows the converted base, opens
16 visitors in one Chromium, each with a question of its own, and writes results/many_users.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from gradio_client import Client
from playwright.sync_api import Page, expect

from ramole_core.settings import REPOSITORY, Settings
from tests.browser import chromium_running, visits
from tests.serving import running

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
    with tempfile.TemporaryDirectory() as folder, chromium_running() as browser:
        root = Path(folder)
        (root / "base").symlink_to(Settings().data_dir / "base")
        said = {"data_dir": root, "quantization": quantization}
        os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
        command = ["env", f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}", sys.executable]
        with running([*command, "app.py"], root, **said) as server, visits(browser) as visit:
            clients = _by_clients(server.url, prompts, repeats, tokens)
            pages = [visit(server.url) for _ in range(users)]
            expect(pages[0].locator("#status .ready")).to_be_visible(timeout=240_000)
            for page, prompt in zip(pages, prompts, strict=True):
                _prepare(page, prompt, tokens)
            _wait(_asked(pages[0]))
            apart, together, answered, spent = [], [], [], []
            for _ in range(repeats):
                began = time.perf_counter()
                for page in pages:
                    _wait(_asked(page))
                apart.append(time.perf_counter() - began)
                alone = [page.locator("#answer .text").inner_text() for page in pages]
                began, before = time.perf_counter(), _cpu(server.process.pid)
                for page in [_asked(page) for page in pages]:
                    _wait(page)
                together.append(time.perf_counter() - began)
                after = _cpu(server.process.pid)
                spent.append({name: round(after[name] - before[name], 2) for name in after})
                answers = [page.locator("#answer .text").inner_text() for page in pages]
                answered.append(sum(a == b for a, b in zip(alone, answers, strict=True)))
    ratios = [a / b for a, b in zip(apart, together, strict=True)]
    return {
        "one_after_another_s": [round(s, 2) for s in apart],
        "at_once_s": [round(s, 2) for s in together],
        "times_faster": [round(ratio, 2) for ratio in ratios],
        "median_times_faster": round(statistics.median(ratios), 2),
        "same_answers": answered,
        "cpu_seconds_at_once": spent,
        "by_clients_of_the_endpoint": clients,
    }


def _by_clients(url: str, prompts: list[str], repeats: int, tokens: int) -> dict[str, object]:
    """The same questions without browsers, which have work of their own: by `/ask`."""
    clients = [Client(url, verbose=False) for _ in prompts]
    options = {"max_new_tokens": tokens, "api_name": "/ask"}
    clients[0].predict(prompts[0], **options)  # waits for the model
    apart, together = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        for client, prompt in zip(clients, prompts, strict=True):
            client.predict(prompt, **options)
        apart.append(time.perf_counter() - began)
        began = time.perf_counter()
        for job in [
            client.submit(prompt, **options)
            for client, prompt in zip(clients, prompts, strict=True)
        ]:
            job.result()
        together.append(time.perf_counter() - began)
    for client in clients:
        client.close()
    ratios = [a / b for a, b in zip(apart, together, strict=True)]
    return {
        "one_after_another_s": [round(s, 2) for s in apart],
        "at_once_s": [round(s, 2) for s in together],
        "median_times_faster": round(statistics.median(ratios), 2),
    }


def _cpu(server: int) -> dict[str, float]:
    """Seconds of a core that the server and the visitors' browser have used so far."""
    mine = psutil.Process()
    visitors = [one for one in mine.children(recursive=True) if one.pid != server]
    used = {"server": [psutil.Process(server)], "browsers": [mine, *visitors]}
    return {name: sum(sum(one.cpu_times()[:2]) for one in every) for name, every in used.items()}


def _prepare(page: Page, prompt: str, tokens: int) -> None:
    page.locator("#beside-box input").uncheck()
    page.locator("#more button").first.click()
    page.get_by_label("Most new tokens").first.fill(str(tokens))
    page.get_by_label("Most new tokens").first.press("Tab")
    page.locator("#prompt textarea").fill(prompt)


def _asked(page: Page) -> Page:
    page.locator("#prompt textarea").press("Enter")
    expect(page.locator("#timing dl")).to_have_count(0)
    return page


def _wait(page: Page) -> None:
    expect(page.locator("#timing dl")).to_be_visible(timeout=240_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "many_users.json")
    said = parser.parse_args()
    found = {
        "command": "python " + " ".join(["-m lab.benchmarks.many_users", *sys.argv[1:]]),
        "users": said.users,
        "most_tokens": said.tokens,
        "quantization": said.quantization,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        **measure(said.users, said.repeats, said.tokens, said.quantization),
    }
    said.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
