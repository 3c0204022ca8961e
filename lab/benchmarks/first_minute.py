"""How long a newcomer waits: from `git clone` to the first answer, and a second start.

    python -m lab first_minute

The last commit is cloned into a new folder with a home of its own, where neither pip nor the page
has kept anything, and started by README's command. A browser on the same cores takes a picture of
the page every five seconds once there is one (the film strip), and asks one question as soon as it
may.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Error, Page, sync_playwright

from lab import harness
from lab.benchmarks.page import free_port, has_model, running
from ramole_core.settings import REPOSITORY
from tests.support.browser import program

OURS = ("RAMOLE_", "GRADIO_", "XDG_", "PYTHON")
"""Of the environment, what a newcomer has not set."""
FRAME_SECONDS = 5
LIMIT_SECONDS = 900
SIZE, STRIP_COLUMNS = (1280, 800), 4
SMALL = (SIZE[0] // 4, SIZE[1] // 4)
PROMPT = "Fix the capital letters: anna and i live in rome"
SEEN = """() => new MutationObserver(() => {
  if (document.querySelector('#answer .token ~ .caret')) window.firstToken = true;
}).observe(document, { childList: true, subtree: true })"""
"""A short answer streams for less time than lies between two looks."""
WORK = Path(tempfile.gettempdir()) / "first_minute"
STRIP = REPOSITORY / "docs" / "first-minute.png"


class Watch:
    """One start, by the clock: what came when, and the pictures of it."""

    def __init__(self, url: str, page: Page):
        self.seconds: dict[str, float] = {}
        self.frames: list[Image.Image] = []
        self.page, self._url, self._began = page, url, time.monotonic()
        self._opened, self._next = False, 0.0

    def note(self, name: str) -> None:
        """Note that something has come, once."""
        self.seconds.setdefault(name, round(time.monotonic() - self._began, 1))

    def until(self, done: Callable[[], bool]) -> None:
        """Look and take pictures until it is done; raises SystemExit after LIMIT_SECONDS."""
        while not done():
            if time.monotonic() - self._began > LIMIT_SECONDS:
                raise SystemExit(f"Not there after {LIMIT_SECONDS} s: {self.seconds}.")
            if self._opened and time.monotonic() > self._next:
                self.take()
            time.sleep(0.05)

    def health(self) -> dict:
        """What /health says; empty while nobody answers."""
        try:
            found = httpx.get(f"{self._url}/health", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return {}
        self.note("page")
        if not self._opened:
            self.page.goto(self._url)
            self._opened = True
        return found

    def sees(self, what: str, name: str) -> bool:
        """Whether the browser shows an element; notes it by its name."""
        try:
            there = self._opened and self.page.locator(what).first.is_visible()
        except Error:  # the page is being drawn anew
            there = False
        if there:
            self.note(name)
        return there

    def take(self) -> None:
        """Take a picture, and the next one in FRAME_SECONDS."""
        self._next = time.monotonic() + FRAME_SECONDS
        image = Image.open(BytesIO(self.page.screenshot()))
        self.frames.append(image.convert("RGB").resize(SMALL))


def main(
    work: harness.Work = WORK, out: harness.Out = harness.RESULTS / "first_minute.json"
) -> None:
    """Clone, start, ask, start again; write the seconds and the film strip."""
    results = harness.Results(out, unit="seconds")
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    home = work / "home"
    home.mkdir(parents=True)
    environment = kept | {"HOME": str(home), "RAMOLE_PORT": str(port), "PIP_NO_CACHE_DIR": "1"}
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=program())

        def watch() -> Watch:
            width, height = SIZE
            page = browser.new_page(viewport={"width": width, "height": height})
            return Watch(f"http://127.0.0.1:{port}", page)

        first = watch()
        clone = work / "clone"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        first.note("clone")
        with (work / "first.log").open("wb") as log:
            with running(["make", "run"], clone, environment, log):
                _follow(first)
        second = watch()
        python = clone / ".venv" / "bin" / "python"
        with running([python, "app.py"], clone, environment):
            _follow(second)
        browser.close()
    _strip(first.frames).save(STRIP, optimize=True)
    results.write(first_start=first.seconds, second_start=second.seconds)
    print(results.held)


def _follow(watch: Watch) -> None:
    """Until the model is ready and one question is answered."""
    watch.until(lambda: bool(watch.health()))
    watch.until(lambda: watch.sees("#answer .token", "recorded run in sight"))
    watch.until(lambda: has_model(watch.health()))
    watch.note("ready")
    watch.until(lambda: watch.sees("#status .ready", "ready in sight"))
    page = watch.page
    page.evaluate(SEEN)
    page.locator("#prompt textarea").fill(PROMPT)
    page.locator("#prompt textarea").press("Enter")
    watch.note("asked")
    watch.until(lambda: page.evaluate("window.firstToken"))
    watch.note("first token")
    watch.until(lambda: not page.locator("#answer .caret").count())
    watch.note("answered")
    watch.take()


def _strip(frames: list[Image.Image]) -> Image.Image:
    """All pictures in rows, one after the other."""
    rows = -(-len(frames) // STRIP_COLUMNS)
    strip = Image.new("RGB", (SMALL[0] * STRIP_COLUMNS, SMALL[1] * rows), "white")
    for number, frame in enumerate(frames):
        row, column = divmod(number, STRIP_COLUMNS)
        strip.paste(frame, (column * SMALL[0], row * SMALL[1]))
    return strip
