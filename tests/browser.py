"""Chromium for the browser tests: how it starts, and a page of its own for each visit."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000
"""Milliseconds; the machine may be busy."""


@contextmanager
def chromium_running() -> Iterator[Browser]:
    """A browser; for one module at most, as its event loop would be in the way of others."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


def fresh_page(browser: Browser, url: str, *, width: int = 1280, theme: str = "light") -> Page:
    """The page in a context of its own; `requested` and `wrong` keep its requests and errors."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.requested, page.wrong = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(f"{url}/?__theme={theme}")
    return page
