"""The whole page with its text at 200 %: nothing is cut off, nothing scrolls sideways."""

import pytest
from playwright.sync_api import expect

from tests.browser import PATIENCE, open_tab, visits
from tests.serving import fake_page

expect.set_options(timeout=PATIENCE)
TABS = {
    "Ask": "#ask-button",
    "Compare": "#compare-button",
    "Inspect": "#inspect-answer .token",
    "Pool": ".rm-card",
    "Batch": "#batch-tab button.primary",
    "Results": "#results-tab h2",
    "Learn": "#learn-words h2",
}
LARGE = "document.documentElement.style.fontSize = '200%'"
CUT = """() => [...document.querySelectorAll('button, label, h1, h2, h3, summary')]
  .filter((node) => node.getClientRects().length && getComputedStyle(node).overflow !== 'visible')
  .filter((node) => node.clientWidth > 2 && !node.closest('.sr, [role="tablist"]'))
  .filter((node) => node.scrollWidth > node.clientWidth + 2 ||
    node.scrollHeight > node.clientHeight + 4)
  .map((node) => (node.id || node.className) + ': ' + node.textContent.trim().slice(0, 40))"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoom")
    with fake_page("tests.learn_page", root) as one:
        yield one


@pytest.fixture
def visit(chromium):
    with visits(chromium, until=["#prompt textarea"]) as open_page:
        yield open_page


def opened(page, name: str) -> None:
    open_tab(page, name)
    expect(page.locator(TABS[name]).first).to_be_visible()


def test_at_twice_its_size_nothing_is_cut_or_scrolled_to(server, visit):
    page = visit(server.url, width=640)  # a window of 1280 pixels, zoomed to 200 %
    for name in TABS:
        opened(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 640, name
    page.set_viewport_size({"width": 1280, "height": 900})  # its text alone
    size = "parseFloat(getComputedStyle(document.querySelector('#hero p')).fontSize)"
    normal = page.evaluate(size)
    page.evaluate(LARGE)
    page.wait_for_function(f"Math.abs({size} - 2 * {normal}) < 0.01")  # it grows step by step
    for name in TABS:
        opened(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280, name
        assert page.evaluate(CUT) == [], name
    assert not page.wrong
