"""Pictures of the real page for README and docs: `python docs/screenshots.py http://127.0.0.1:7860`.

The run that is open at first, one token in detail, a batch that has ended, and the other tabs.
Names behind the address (ask token pool batch ...) make these alone.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
VIEWS = {"light": (1280, 1000), "dark": (1280, 1000), "phone": (390, 1100)}
"""Width and height."""
TOKEN = 2


def ask(page: Page, view: str) -> None:
    """The run that is open at first."""
    page.screenshot(path=FOLDER / f"ask-{view}.png")


def token(page: Page, view: str) -> None:
    """The panel of one of its tokens."""
    page.locator("#answer .token").nth(TOKEN).click(timeout=90_000)
    page.wait_for_selector(".js-plotly-plot", timeout=60_000)
    page.wait_for_timeout(3000)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=FOLDER / f"token-{view}.png", full_page=True)


def tab_of(name: str) -> Callable[[Page, str], None]:
    """One that needs nothing but to be opened."""

    def tab(page: Page, view: str) -> None:
        page.evaluate("name => window.ramoleTab(name)", name)  # a phone has no room for all
        page.wait_for_timeout(6000)
        page.screenshot(path=FOLDER / f"{name}-{view}.png")

    return tab


def batch(page: Page, view: str) -> None:
    """Two dozen rows that have ended, with their map."""
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
    page.wait_for_timeout(500)
    page.screenshot(path=FOLDER / f"batch-{view}.png")


PARTS: dict[str, tuple[Callable[[Page, str], None], tuple[str, ...]]] = {
    "ask": (ask, ("light", "phone")),
    "token": (token, ("dark",)),
    "batch": (batch, ("light",)),
}
"""Each with the views that the pages show."""
PARTS |= {name: (tab_of(name), ("light",)) for name in ("inspect", "pool", "results", "learn")}


def main(url: str, *parts: str) -> None:
    """Write docs/PART-VIEW.png."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        for part in parts or PARTS:
            make, views = PARTS[part]
            for view in views:
                width, height = VIEWS[view]
                scheme = "dark" if view == "dark" else "light"
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto(f"{url.rstrip('/')}/?__theme={scheme}")
                page.wait_for_selector("#answer .token")
                page.wait_for_timeout(1500)
                make(page, view)
                page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
