"""Pictures of the real page for README: `python docs/screenshots.py http://127.0.0.1:7860`.

Light, dark and a phone's width, a recorded run with one token under the glass, and the tab Pool.
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
VIEWS = (("light", 1280, 1000), ("dark", 1280, 1000), ("phone", 390, 1100))
TOKEN = 3


def picture(page: Page, url: str, view: str) -> None:
    """Ask with a recorded run, its token's panel, and Pool."""
    page.goto(f"{url}/?__theme={'dark' if view == 'dark' else 'light'}")
    page.wait_for_timeout(3000)
    page.get_by_text("Voice command to JSON").first.click()
    page.locator("#answer .token").nth(TOKEN).click(timeout=90_000)
    page.wait_for_selector(".js-plotly-plot", timeout=60_000)
    page.wait_for_timeout(3000)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=FOLDER / f"ask-{view}.png")
    page.screenshot(path=FOLDER / f"token-{view}.png", full_page=True)
    page.get_by_role("tab", name="Pool").click()
    page.wait_for_timeout(2500)
    page.screenshot(path=FOLDER / f"pool-{view}.png")


def main(url: str) -> None:
    """Write docs/{ask,token,pool}-{light,dark,phone}.png."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for view, width, height in VIEWS:
            scheme = "dark" if view == "dark" else "light"
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            picture(context.new_page(), url.rstrip("/"), view)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
