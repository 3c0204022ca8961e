"""The first minute in a real Chromium: one button, a question that is kept, and what is done before
the first token."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Page, expect

from lab.benchmarks.many_users import by_browsers
from ramole_core import Request
from tests.support.ask_page import OPTIONS_PROMPT
from tests.support.browser import LONG, ask_page, enter, refused, serious
from ui.parts.events import FAILED
from ui.parts.link import link_to

ASKING = "#ask-bar button:visible"
FROM_THE_RIGHT = "\u0647\u0630\u0627 \u0642\u0627\u0631\u0628."
"""`This is a boat.` in Arabic."""
ENDLESS = """() => document.getAnimations()
  .filter((one) => one.effect.getComputedTiming().iterations === Infinity)
  .map((one) => one.animationName)"""
FRAMES = """async () => {
  const number = () => requestAnimationFrame(() => {});
  const from = number();
  await new Promise((over) => setTimeout(over, 500));
  return number() - from - 1;
}"""
"""How many frames are requested by scripts within half a second: they are numbered."""
ENDS_LEFT = """(node) => {
  const text = [...node.childNodes].findLast((one) => one.nodeType === Node.TEXT_NODE);
  const at = (n) => {
    const range = document.createRange();
    range.setStart(text, n);
    range.setEnd(text, n + 1);
    return range.getBoundingClientRect().left;
  };
  return at(text.length - 1) < at(0);
}"""
"""Whether the full stop of its text stands to the left of its first letter."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page whose model answers eight tokens, while `gate` is there."""
    root = tmp_path_factory.mktemp("first")
    gate = root / "gate"
    gate.touch()
    with ask_page(root, answer_gate=gate) as server:
        yield SimpleNamespace(url=server.url, gate=gate)


@contextmanager
def held(server: SimpleNamespace) -> Iterator[None]:
    """What is asked inside the block is answered no further than its first token before the end of
    the block."""
    server.gate.unlink()
    try:
        yield
    finally:
        server.gate.touch()


def at_rest(page: Page) -> bool:
    """Whether the page stops asking for frames; Gradio's sign of loading ends its last round."""
    return any(page.evaluate(FRAMES) == 0 for _ in range(40))


def ended(page: Page, prompt: str) -> None:
    """Wait until the answer to this prompt has ended."""
    expect(page.locator("#talk .now .asked")).to_contain_text(prompt)
    expect(page.locator("#answer .caret")).to_have_count(0)
    expect(page.locator("#ask-button")).to_be_enabled()


def test_a_question_that_is_entered_while_another_waits_is_kept_and_asked_next(server, visit):
    page = visit(server.url)
    with held(server):
        enter(page, "Which boats?")
        expect(page.locator("#stop-button")).to_be_visible()
        enter(page, "Whose boats?")
        kept = page.locator("#held")
        expect(kept).to_contain_text("Kept: asked as soon as this answer has ended")
        expect(page.locator("#talk .now .asked")).to_contain_text("Which boats?")
        assert serious(page, "#ask-bar") == []
    ended(page, "Whose boats?")
    expect(page.locator("#held p")).to_have_text("")
    assert page.wrong == []


def test_nothing_on_the_page_moves_by_itself(server, visit):
    """An endless animation, or a script that asks for every frame, works sixty times a second."""
    page = visit(server.url)
    with held(server):
        enter(page, "Which boats?")
        expect(page.locator("#answer .token ~ .caret").first).to_be_visible()
        expect(page.locator("#notice .busy")).to_have_text("Answering… 1 token")
        assert page.evaluate(ENDLESS) == []
        assert at_rest(page)
    ended(page, "Which boats?")
    assert at_rest(page)


def test_the_measurement_of_many_visitors_asks_every_page_in_turns_and_at_once(server, visit):
    pages = [visit(server.url), visit(server.url)]
    found = by_browsers(pages, ["Which boats?", "Which ships?"], 1, 8, os.getpid())
    assert found["one_after_another_s"][0] > 0 < found["at_once_s"][0]
    assert found["cpu_seconds_at_once"][0]["browsers"] > 0
    for page, prompt in zip(pages, ("Which boats?", "Which ships?"), strict=True):
        expect(page.locator("#talk .asked")).to_contain_text([prompt])


def test_a_kept_question_can_be_dropped_and_the_same_one_is_not_kept(server, visit):
    page = visit(server.url)
    with held(server):
        enter(page, "Which boats?")
        expect(page.locator("#stop-button")).to_be_visible()
        expect(page.locator("#talk .now .asked")).to_contain_text("Which boats?")
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


def test_a_prompt_to_try_says_that_an_answer_is_on_its_way(server, visit):
    page = visit(server.url)
    page.locator("#examples-fold > button").click()
    live = page.locator("#examples-live button", has_text="Question to SQL")
    told = page.locator("#held p")
    with held(server):
        enter(page, "Which boats?")
        expect(page.locator("#stop-button")).to_be_visible()
        expect(page.locator("#talk .now .asked")).to_contain_text("Which boats?")  # nothing moves
        live.click()
        expect(told).to_have_text("An answer is on its way: wait for its end, or press Stop.")
        expect(told).to_be_in_viewport()
    ended(page, "Which boats?")
    expect(told).to_have_text("")
    live.click()
    expect(page.locator("#talk .now .asked")).to_contain_text("Bergen")
    expect(page.locator("#ask-button")).to_be_enabled()
    assert page.wrong == []


def test_a_question_that_the_server_does_not_take_is_not_lost_without_a_word(server, visit):
    page = visit(server.url)
    page.route("**/run/**", lambda route: refused(route, True))
    enter(page, "Which boats?")
    expect(page.locator("#held p")).to_contain_text("not asked")
    page.unroute("**/run/**")
    enter(page, "Which boats?")
    ended(page, "Which boats?")
    assert page.wrong == []


@pytest.mark.parametrize("width", [1280, 390])
def test_one_button_asks_and_in_a_chat_the_input_stands_under_it(server, visit, width):
    page = visit(server.url, width=width)
    expect(page.locator(ASKING)).to_have_text(["Ask"])
    with held(server):
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


NOTICES = """() => {
  const notice = document.querySelector('#notice');
  window.notices = [];
  new MutationObserver(() => window.notices.push(notice.textContent))
    .observe(notice, { childList: true, subtree: true, characterData: true });
}"""


def test_a_stop_that_cuts_the_stream_is_no_failure(tmp_path: Path, visit):
    with ask_page(tmp_path, elsewhere=1, **LONG) as server:
        page = visit(server.url)
        enter(page, "Which boats?")
        expect(page.locator("#answer .token ~ .caret").first).to_be_visible()
        page.evaluate(NOTICES)
        page.locator("#stop-button").click()
        expect(page.locator("#notice")).to_have_text("Stopped.")
        ended(page, "Which boats?")
        page.wait_for_timeout(2000)  # the failure of what was cut comes after it
        expect(page.locator("#notice")).to_have_text("Stopped.")
        assert not [said for said in page.evaluate("window.notices") if FAILED in said]


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


def test_what_was_typed_is_back_though_the_answer_in_sight_cannot_be_asked_again(server, visit):
    page = visit(server.url)
    link = link_to(Request(OPTIONS_PROMPT), beside=False)
    page.evaluate("link => window.ramoleKept.set('ramole-link', link)", link)
    page.evaluate("window.ramoleKept.set('ramole-typed', 'typed, not asked')")
    page.reload()
    expect(page.locator("#notice .notice.wrong")).to_contain_text("The options are")
    expect(page.locator("#prompt textarea")).to_have_value("typed, not asked")


def test_words_that_run_from_right_to_left_end_on_the_left(server, visit):
    page = visit(server.url)
    enter(page, FROM_THE_RIGHT)
    ended(page, FROM_THE_RIGHT)
    asked = page.locator("#talk .now .asked")
    assert asked.evaluate(ENDS_LEFT)
    for place in ("#answer .text", "#beside .plain"):
        page.locator(place).evaluate(
            "(node, words) => { node.textContent = words; }", FROM_THE_RIGHT
        )
        assert page.locator(place).evaluate(ENDS_LEFT), place
    page.locator("#answer .text").evaluate("node => { node.textContent = 'A boat.'; }")
    assert not page.locator("#answer .text").evaluate(ENDS_LEFT)
