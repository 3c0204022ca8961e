"""The first minute in a real Chromium: one button, a question that is kept, and what is done before
the first token."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import LONG, PATIENCE, ask_page, serious, visits

expect.set_options(timeout=PATIENCE)
ASKING = "#ask-bar button:visible"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page whose model answers eight tokens, one in a quarter of a second."""
    with ask_page(tmp_path_factory.mktemp("first"), step_seconds=0.25) as server:
        yield server


@pytest.fixture
def visit(chromium):
    """Open a page in a fresh context; every request and page error is kept."""
    with visits(chromium) as open_page:
        yield open_page


def enter(page: Page, prompt: str) -> None:
    """Type a prompt and press Enter."""
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#prompt textarea").press("Enter")


def ended(page: Page, prompt: str) -> None:
    """Wait until the answer to this prompt has ended."""
    expect(page.locator("#talk .now .asked")).to_contain_text(prompt)
    expect(page.locator("#answer .caret")).to_have_count(0)
    expect(page.locator("#ask-button")).to_be_enabled()


def test_a_question_that_is_entered_while_another_waits_is_kept_and_asked_next(server, visit):
    page = visit(server.url)
    enter(page, "Which boats?")
    expect(page.locator("#stop-button")).to_be_visible()
    enter(page, "Whose boats?")
    expect(page.locator("#held")).to_contain_text("Kept: asked as soon as this answer has ended")
    expect(page.locator("#talk .now .asked")).to_contain_text("Which boats?")
    assert serious(page, "#ask-bar") == []
    ended(page, "Whose boats?")
    expect(page.locator("#held p")).to_have_text("")
    assert page.wrong == []


def test_a_kept_question_can_be_dropped_and_the_same_one_is_not_kept(server, visit):
    page = visit(server.url)
    enter(page, "Which boats?")
    expect(page.locator("#stop-button")).to_be_visible()
    page.locator("#prompt textarea").press("Enter")
    expect(page.locator("#held")).to_contain_text("An answer is on its way")
    enter(page, "Whose boats?")
    page.get_by_role("button", name="Do not ask it").click()
    ended(page, "Which boats?")
    page.wait_for_timeout(1000)
    expect(page.locator("#talk .now .asked")).to_contain_text("Which boats?")
    expect(page.locator("#prompt textarea")).to_have_value("Whose boats?")


def test_stop_ends_the_answer_and_the_kept_question_follows(tmp_path: Path, visit):
    with ask_page(tmp_path, **LONG) as server:
        page = visit(server.url)
        enter(page, "Which boats?")
        expect(page.locator("#stop-button")).to_be_visible()
        enter(page, "Whose boats?")
        page.locator("#stop-button").click()
        expect(page.locator("#talk .now .asked")).to_contain_text("Whose boats?")
        expect(page.locator("#answer .token ~ .caret").first).to_be_visible()
        page.locator("#stop-button").click()
        ended(page, "Whose boats?")


@pytest.mark.parametrize("width", [1280, 390])
def test_one_button_asks_and_in_a_chat_the_input_stands_under_it(server, visit, width):
    page = visit(server.url, width=width)
    expect(page.locator(ASKING)).to_have_text(["Ask"])
    enter(page, "Which boats?")
    expect(page.locator(ASKING)).to_have_text(["Stop"])
    ended(page, "Which boats?")
    expect(page.locator(ASKING)).to_have_text(["Ask"])
    page.get_by_label("follow up on this answer").check()
    enter(page, "And where?")
    ended(page, "And where?")
    expect(page.locator("#talk .turn")).to_have_count(2)
    expect(page.locator(ASKING)).to_have_text(["Ask on", "New conversation"])
    expect(page.get_by_label("follow up on this answer")).to_be_hidden()
    answer, prompt, bar = [
        page.locator(one).evaluate("one => one.getBoundingClientRect().top")
        for one in ("#answer", "#prompt", "#ask-bar")
    ]
    assert answer < prompt < bar
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.wrong == []


BARS = """() => {
  const notice = document.querySelector('#notice');
  window.bars = [];
  new MutationObserver(() => {
    const bar = notice.querySelector('progress');
    window.bars.push(bar ? [bar.value, bar.getBoundingClientRect().width] : null);
  }).observe(notice, { attributes: true, childList: true, subtree: true });
}"""


def test_before_the_first_token_a_bar_shows_what_is_done(tmp_path: Path, visit):
    gate = tmp_path / "gate"
    with ask_page(tmp_path, gate=gate, step_seconds=0.25) as server:
        page = visit(server.url)
        page.evaluate(BARS)
        enter(page, "Which boats?")
        bar = page.locator("#notice progress")
        expect(bar).to_be_visible()
        expect(page.locator("#notice")).to_contain_text("60 %")  # so much the fake has loaded
        assert bar.bounding_box()["width"] > 100
        gate.touch()
        ended(page, "Which boats?")
        expect(bar).to_have_count(0)
        values = [one[0] for one in page.evaluate("window.bars") if one]
        assert len(values) > 1 and min(values) >= 0 and max(values) <= 1
