"""Pictures of the real page for README: `python docs/screenshots.py http://127.0.0.1:7860`.

Light, dark and a phone's width: the run that is open at first with one token in detail, a batch
that has ended, and the other tabs. Names behind the address (ask pool batch ...) make these alone.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
VIEWS = (("light", 1280, 1000), ("dark", 1280, 1000), ("phone", 390, 1100))
TOKEN = 8


def ask(page: Page, view: str) -> None:
    """The run that is open at first, and a token's panel."""
    page.locator("#answer .token").nth(TOKEN).click(timeout=90_000)
    page.wait_for_selector(".js-plotly-plot", timeout=60_000)
    page.wait_for_timeout(3000)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=FOLDER / f"ask-{view}.png")
    page.screenshot(path=FOLDER / f"token-{view}.png", full_page=True)


def tab_of(name: str) -> Callable[[Page, str], None]:
    """One that needs nothing but to be opened."""

    def tab(page: Page, view: str) -> None:
        page.evaluate("name => window.ramoleTab(name)", name)  # a phone has no room for all
        page.wait_for_timeout(6000)
        page.screenshot(path=FOLDER / f"{name}-{view}.png")

    return tab


def batch(page: Page, view: str) -> None:
    """Two dozen rows that have ended, with their map; a phone shows the map alone."""
    page.evaluate("window.ramoleTab('batch')")
    page.locator("#status .ready").wait_for(timeout=240_000)
    page.get_by_text("24 rows of four tasks").click()
    page.get_by_text("24 rows ready").wait_for()
    page.locator("#batch-run").click()
    page.locator("#batch-notice .ready").wait_for(timeout=240_000)
    page.locator("#batch-picture .line").nth(1).click()
    page.get_by_text("Request 2", exact=False).wait_for()
    page.wait_for_timeout(1500)
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    if view == "phone":
        page.locator("#batch-side").evaluate("node => node.scrollIntoView({ block: 'start' })")
    page.wait_for_timeout(500)
    page.screenshot(path=FOLDER / f"batch-{view}.png")


PARTS = {"ask": ask, "batch": batch}
PARTS |= {name: tab_of(name) for name in ("inspect", "pool", "results", "learn")}


def main(url: str, *parts: str) -> None:
    """Write docs/{ask,token,batch,inspect,pool,results,learn}-{light,dark,phone}.png."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for view, width, height in VIEWS:
            scheme = "dark" if view == "dark" else "light"
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            for part in parts or PARTS:
                page.goto(f"{url.rstrip('/')}/?__theme={scheme}")
                page.wait_for_selector("#answer .token")
                page.wait_for_timeout(1000)
                PARTS[part](page, view)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
