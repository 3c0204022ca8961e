"""Chromium for the browser tests: how it starts, and a page of its own for each visit."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Download,
    Locator,
    Page,
    Route,
    TimeoutError,
    expect,
    sync_playwright,
)

from tests.support.serving import Server, fake_page
from tests.support.started import started

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --process-per-site"
).split() + ["--js-flags=--no-flush-bytecode"]
PATIENCE = 180_000
"""Milliseconds; the machine may be busy."""
LONG = {"step_seconds": 0.25, "length": 4000, "endless": True}
"""For `ask_page`: an answer takes a quarter of an hour, whatever length the form asks for, so none
ends before a test stops it."""
FINISH = """() => document.getAnimations().forEach((one) => {
  if (one.effect.getComputedTiming().endTime !== Infinity) one.finish();
})"""
"""Transitions and animations are at their end now."""
SETTLED = """() => document.getAnimations().every((one) =>
  one.playState !== 'running' || one.effect.getComputedTiming().endTime === Infinity)"""
"""No transition is under way: a button that just became enabled is half faded until it ends."""


expect.set_options(timeout=PATIENCE)


def ask_page(root: Path, **environment: object) -> AbstractContextManager[Server]:
    """The page of `tests.support.ask_page` in a process of its own, with its variables."""
    said = {**environment, "recorded": root / "recorded"}
    return fake_page("tests.support.ask_page", root, variables=said)


def program() -> str:
    """The browser's program: without a window system where that is there, a third of the work."""
    for name in ("chromium-headless-shell", "chromium"):
        if found := shutil.which(name):
            return found
    raise RuntimeError("No Chromium is on the PATH; on Debian: apt-get install chromium")


FOCUSED = """() => {
  const one = document.activeElement;
  const ring = (node) => {
    if (!node) return false;
    const at = getComputedStyle(node), box = node.getBoundingClientRect();
    const drawn = at.outlineStyle !== 'none' && parseFloat(at.outlineWidth) > 0;
    return drawn && parseFloat(at.opacity) > 0.1 && box.width > 3 && box.height > 3;
  };
  if (!one || one === document.body) return null;
  const name = `${one.tagName} ${one.id} ${one.className} ${(one.innerText || '').slice(0, 30)}`;
  return { name, seen: ring(one) || ring(one.closest('label')) };
}"""
BREAKS = """async (within) => {
  const found = await axe.run(within ?? document, { resultTypes: ['violations'] });
  return found.violations
    .filter((rule) => ['serious', 'critical'].includes(rule.impact))
    .map((rule) => [rule.id, rule.nodes.slice(0, 5).map((node) => node.html.slice(0, 160))]);
}"""
FRAMES = """() => new Promise((over) => {
  let left = 30;
  const frame = () => (left-- ? requestAnimationFrame(frame) : over());
  frame();
})"""
"""So many pictures of the page; on a busy machine they are late as well."""


@contextmanager
def chromium_running() -> Iterator[Browser]:
    """A browser; its event loop stays in this thread until it is closed."""
    started("browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visits(
    browser: Browser,
    *,
    tab: str | None = None,
    until: Sequence[str] = ("#prompt textarea", "#status .notice", "#answer .token"),
) -> Iterator[Callable[..., Page]]:
    """Opens pages, each as a visitor of its own, goes to `tab`, waits until all of `until` are
    seen, and closes them all in the end.

    The first of a test is in a browser that keeps the page's scripts from test to test and nothing
    else; those beside it have one of their own, since a browser holds six connections at most."""
    contexts: list[BrowserContext] = []

    def open_page(url: str, *, width: int = 1280, theme: str = "light") -> Page:
        contexts.append(browser.new_context() if contexts else _kept(browser, url))
        page = fresh_page(contexts[-1], url, width=width, theme=theme)
        if tab is not None:
            page.get_by_role("tab", name=tab).click()
        for seen in until:
            expect(page.locator(seen).first).to_be_visible(timeout=PATIENCE)
        return page

    yield open_page
    for page in [page for context in contexts for page in context.pages]:
        if page is not KEPT[browser]:
            page.close()
    for context in contexts[1:]:
        context.close()


KEPT: WeakKeyDictionary[Browser, Page] = WeakKeyDictionary()
"""A small page that stays open: all of its context have one process with it, which compiles a
script once. Plotly's alone takes a second and a half."""


def _kept(browser: Browser, url: str) -> BrowserContext:
    """The browser's context that keeps scripts, without what an earlier test left in it."""
    if browser not in KEPT:
        KEPT[browser] = browser.new_context().new_page()
        KEPT[browser].goto(f"{url}/health")
    context = KEPT[browser].context
    context.clear_cookies()
    context.clear_permissions()
    return context


def fresh_page(
    context: BrowserContext, url: str, *, width: int = 1280, theme: str = "light"
) -> Page:
    """The page in a tab of its own; `requested`, `wrong` and `said` keep its requests, its errors
    and those on its console."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.set_default_timeout(PATIENCE)
    page.requested, page.wrong, page.said = [], [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda one: page.said.append(one.text) if one.type == "error" else None)
    page.goto(f"{url}/?__theme={theme}")
    return page


def lost_focus(page: Page) -> list[str]:
    """Where Tab comes from the page's top, and no focus is seen or Tab goes no further."""
    page.evaluate("document.activeElement.blur()")
    page.mouse.click(5, 5)
    stops = []
    for _ in range(80):
        page.keyboard.press("Tab")
        if (stop := page.evaluate(FOCUSED)) is None:
            break
        stops.append(stop)
    last = [one["name"] for one in stops[-9:]]
    kept = [last[0]] if len(last) == 9 and len(set(last)) == 1 else []
    assert len({one["name"] for one in stops}) > 3, "Tab comes to hardly anything"
    return [one["name"] for one in stops if not one["seen"]] + kept


def stopped_within(page: Page, button: str, notice: str, *, patience: float = PATIENCE) -> None:
    """Press Stop, and wait no longer than so many milliseconds until the notice says that it
    stopped; what is stopped is `LONG`."""
    page.locator(button).click()
    expect(page.locator(notice)).to_contain_text("Stopped.", timeout=patience)
    expect(page.locator(button)).to_be_hidden()


def enter(page: Page, prompt: str) -> None:
    """Type a prompt and press Enter."""
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#prompt textarea").press("Enter")


def streams(page: Page) -> None:
    """Wait until tokens come."""
    expect(page.locator("#answer .token ~ .token ~ .caret").first).to_be_visible()


NOT_COPIED = "nothing was copied"


def copied(page: Page, button: str, within: Locator | None = None) -> str:
    """What a button puts on the clipboard, read from there."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("words => navigator.clipboard.writeText(words)", NOT_COPIED)
    (within or page).locator(button).click()
    changed = "async words => (await navigator.clipboard.readText()) !== words"
    page.wait_for_function(changed, arg=NOT_COPIED)
    return page.evaluate("navigator.clipboard.readText()")


def taken(page: Page, button: str) -> Download:
    """The file that a button gives away."""
    with page.expect_download() as waiting:
        page.locator(button).click()
    return waiting.value


def elsewhere(page: Page, url: str) -> list[str]:
    """What the page asked of others than its server."""
    return [one for one in page.requested if not one.startswith((url, "data:", "blob:"))]


def open_tab(page: Page, name: str) -> None:
    """By a click. A narrow page folds its last tabs into a menu, some time after they are drawn."""
    tab = page.get_by_role("tab", name=name, exact=True)
    folded = page.locator(".overflow-dropdown button", has_text=name)
    for patience in (1000, 2000, 4000, 8000, 16000):
        with suppress(TimeoutError):
            return tab.click(timeout=patience)
        with suppress(TimeoutError):
            if not folded.is_visible():
                page.locator(".overflow-menu > button").click(timeout=patience)
            return folded.click(timeout=patience)
    raise AssertionError(f"No tab {name} can be opened.")


def refused(route: Route, refuse: bool) -> None:
    """Answer a request as a busy server does, or let it go on."""
    if refuse:
        route.fulfill(status=429, json={"error": "Too many calls; wait a minute."})
    else:
        route.continue_()


def fill_number(field: Locator, value: str) -> None:
    """Type a number as a person would: some frames after Gradio has drawn a field it gives it its
    first value once more, and what was typed before is lost."""
    expect(field).to_be_visible()
    for _ in range(5):
        field.page.evaluate(FRAMES)
        field.fill(value)
        field.press("Tab")
        field.page.evaluate(FRAMES)
        if field.input_value() == value:
            return
    raise AssertionError(f"{field} does not keep {value}.")


def serious(page: Page, within: str | None = None) -> list[tuple[str, list[str]]]:
    """What axe calls serious or worse on the page, or inside `within`, with every transition at
    its end: each rule with the first elements that break it."""
    page.evaluate(FINISH)
    page.wait_for_function(SETTLED)
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    return [(rule, nodes) for rule, nodes in page.evaluate(BREAKS, within)]
