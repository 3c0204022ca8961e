"""How soon a visitor sees things: the page on the real model, watched in Chromium.

    python -m lab page_speed

The page is served in this process on a fresh DATA_DIR that borrows the converted base model, and
opened as a visitor does. Measured are: first paint and first recorded run from the opening of the
address; the time from the moment when the engine hands out a token to the moment when it stands on
the screen; from a press on a token of a long answer with its trace to its panel, alone and while
the model is still asked about the token that was pressed before; and until Inspect has drawn all of
that answer.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, Page, sync_playwright

from lab import harness
from lab.benchmarks.page import free_port, fresh_folder
from tests.support.browser import program

if TYPE_CHECKING:
    from ramole_core import Ramole

TOKENS, VISITS, PRESSES = 500, 5, 20
PAUSE = 3000
"""Milliseconds; the model has said what else was likely by then."""
PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,"
"""Its answer goes on counting for as long as it may."""
SEEN = """
window.seen = [];
new MutationObserver(() => requestAnimationFrame(() => {
  const count = document.querySelectorAll('#answer .token').length, now = Date.now();
  while (window.seen.length < count) window.seen.push(now);
})).observe(document, { childList: true, subtree: true });
"""
"""When each token was painted."""
PANEL = """(index) => new Promise((done) => {
  const began = performance.now(), title = 'Token ' + (index + 1) + ' ';
  const over = () => requestAnimationFrame(() => done(performance.now() - began));
  const told = () => document.querySelector('#token h2')?.textContent.includes(title);
  const look = () => told() ? over() : setTimeout(look, 5);
  document.querySelectorAll('#answer .token')[index].click();
  look();
})"""
INSPECT = """() => new Promise((done) => {
  const began = performance.now();
  const over = () => requestAnimationFrame(() => done(performance.now() - began));
  const count = (what) => document.querySelectorAll(what).length;
  const drawn = () => count('#inspect-body .js-plotly-plot > .plot-container') >= 5 &&
    count('#inspect-answer .token') > 400;
  const look = () => drawn() ? over() : setTimeout(look, 10);
  window.ramoleTab('inspect');
  look();
})"""
PAINTED = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"""
RECORDED = """() => {
  if (document.querySelectorAll('#answer .token').length) return performance.now();
}"""


def main(out: harness.Out = harness.RESULTS / "page.json") -> None:
    """Measure, print, and write the file."""
    results = harness.Results(out, unit="milliseconds")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GRADIO_TEMP_DIR"] = cache
        with _served() as (ramole, url), sync_playwright() as tools:
            browser = tools.chromium.launch(executable_path=program())
            load = [round(os.getloadavg()[0], 1)]
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            found = _opened(browser, url) | _answered(page, ramole, url)
            load.append(round(os.getloadavg()[0], 1))
            browser.close()
    results.write(load_average=load, **found)
    print(json.dumps(results.held, indent=1))


@contextmanager
def _served() -> "Iterator[tuple[Ramole, str]]":
    from ramole_core import Ramole
    from ramole_core.settings import load_settings
    from ui import build
    from ui.serve import launch

    with fresh_folder() as folder:
        settings = load_settings(data_dir=folder, max_new_tokens=TOKENS, port=free_port())
        with Ramole(settings) as ramole:
            ramole.engine.step()  # the model is there: what is measured is the page
            page = build(ramole)
            yield ramole, launch(page, ramole)
            page.close(verbose=False)


def _opened(browser: Browser, url: str) -> dict[str, object]:
    painted, recorded = [], []
    for _ in range(VISITS):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(url)
        recorded.append(page.wait_for_function(RECORDED, timeout=60_000).json_value())
        painted.append(page.evaluate(PAINTED))
        context.close()
    return {"first_paint": harness.spread(painted), "first_recorded_run": harness.spread(recorded)}


def _answered(page: Page, ramole: "Ramole", url: str) -> dict[str, object]:
    from ramole_core import Request
    from ui.parts.link import link_to

    page.set_default_timeout(300_000)
    page.add_init_script(SEEN)
    given = _watched(ramole)
    asked = Request(PROMPT, method="ramole", raw=True, max_new_tokens=TOKENS)
    page.goto(f"{url}{link_to(asked, beside=False)}")
    page.wait_for_function("document.querySelectorAll('#answer .token').length > 400")
    page.wait_for_function("!document.querySelector('#answer .caret')")
    seen = page.evaluate("window.seen")
    late = [shown - 1000 * at for shown, at in zip(seen, given, strict=False)]
    count = page.locator("#answer .token").count()
    steps = range(1, count - 1, max(1, count // PRESSES))
    presses = []
    for index in steps:
        page.wait_for_timeout(PAUSE)
        presses.append(page.evaluate(PANEL, index))
    page.wait_for_timeout(PAUSE)
    hurried = [page.evaluate(PANEL, index + 1) for index in steps]
    page.wait_for_timeout(PAUSE)
    return {
        "tokens": count,
        "token_on_the_screen": harness.spread(late),
        "press_on_a_token_to_its_panel": harness.spread(presses),
        "while_the_model_is_asked_about_the_one_before": harness.spread(hurried),
        "inspect_drawn": round(page.evaluate(INSPECT)),
    }


def _watched(ramole: "Ramole") -> list[float]:
    """The times at which the engine hands out tokens from now on."""
    given: list[float] = []
    stream = ramole.stream_batch

    def watched(*asked, **options):
        for each in stream(*asked, **options):
            if type(each[1]).__name__ == "Step":
                given.append(time.time())
            yield each

    ramole.stream_batch = watched  # type: ignore[method-assign]
    return given
