"""The tab Learn, and every tab at 200 %, in Chromium, on the whole page over a fake system."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import FRAMES, elsewhere, lost_focus, open_tab, serious, visits
from tests.support.serving import fake_page
from ui.learn.guess import GUESSES
from ui.learn.kept import DIFFER, gated
from ui.learn.steps import STEPS, TITLES

SHOWN = {
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

STRAY = """() => [...document.querySelectorAll('*')].filter((node) => {
  const style = getComputedStyle(node);
  const more = (kind, hidden) => /auto|scroll/.test(kind) && hidden > 0 && hidden < 32;
  return node.getClientRects().length && node.tagName !== 'TEXTAREA' &&
    (more(style.overflowX, node.scrollWidth - node.clientWidth) ||
      more(style.overflowY, node.scrollHeight - node.clientHeight));
}).map((node) => `${node.tagName} ${node.id} ${node.className}`)"""
"""What has a scrollbar for less than a line or two."""


AT_ITS_PLACE = """() => {
  const at = document.querySelector('#learn-steps label.selected')?.getBoundingClientRect();
  return at && at.left >= 0 && at.left < innerWidth / 2;
}"""
"""The step stands at the left of the list, which a phone scrolls sideways."""


LOOKS = """() => {
  const later = window.setTimeout;
  window.looks = 0;
  window.setTimeout = (work, wait, ...said) => {
    const look = work.name === 'fill';
    window.looks += look;
    return later(work, look ? 0 : wait, ...said);
  };
}"""
"""Looks for a form that is built late are counted, and come without a pause."""


OFFER = """(node) => {
  while (node.firstElementChild) node = node.firstElementChild;
  node.innerHTML = '<p class="rm-verdict"><button class="rm-try" data-prompt="Which boats?">Try it';
}"""
"""A good verdict's button, as this page takes no uploads."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("learn")
    with fake_page("tests.support.learn_page", root) as one:
        yield one


@pytest.fixture
def visit(chromium):
    with visits(chromium, until=["#prompt textarea"]) as open_page:
        yield open_page


def open_learn(page: Page) -> None:
    open_tab(page, "Learn")
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[0].title)


def by_the_head(page: Page) -> None:
    """As a visitor finds it, from the line on top."""
    page.locator("#hero a[href='#learn']").click()
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[0].title)


def go_to(page: Page, place: int) -> None:
    page.locator("#learn-steps label").nth(place).click()
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[place].title)


def test_all_ten_steps_are_walked_by_keyboard(server, visit):
    page = visit(server.url)
    before = len(page.requested)
    by_the_head(page)
    page.locator("#learn-steps input").first.focus()
    for place, step in enumerate(STEPS):
        expect(page.locator("#learn-words h2")).to_have_text(step.title)
        expect(page.locator("#learn-steps label").nth(place)).to_contain_text(TITLES[place])
        if place == 5:  # while a chart loads, Gradio has a label where none may be
            expect(page.locator("#learn-plot .js-plotly-plot")).to_be_visible()
        assert serious(page, "#learn-tab") == [], step.title
        if place < 5:
            page.keyboard.press("ArrowDown")
        elif place < 9:
            page.locator("#learn-next").focus()
            page.keyboard.press("Enter")
    expect(page.locator("#learn-next")).to_be_disabled()
    page.locator("#learn-back").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[8].title)
    assert page.wrong == []
    assert lost_focus(page) == []
    assert len(page.requested) > before and elsewhere(page, server.url) == []


def test_a_slider_changes_the_numbers_a_token_is_picked_and_an_adapter_guessed(server, visit):
    page = visit(server.url)
    open_learn(page)
    go_to(page, 3)
    result = page.locator("#learn-numbers .sum .result b")
    expect(result).to_have_text(["4.7", "1.7", "3.7"])
    weight = page.locator("#learn-sliders").get_by_role("slider").nth(3)
    weight.focus()
    page.keyboard.press("ArrowRight")
    expect(result).to_have_text(["4.9", "1.75", "3.95"])
    page.locator("#learn-next").scroll_into_view_if_needed()
    assert page.locator("#learn-sliders").bounding_box()["y"] >= -1, "sliders stay in sight"
    assert page.locator(".toast-body").count() == 0
    go_to(page, 4)
    expect(result).to_have_text(["4.71", "1.71", "3.71"])
    expect(page.locator("#learn-sliders").get_by_role("slider")).to_have_count(3)
    go_to(page, 5)
    run, guess = gated(), GUESSES[5]
    tokens = page.locator("#learn-tokens .token")
    expect(tokens).to_have_count(len(run.pieces))
    expect(page.locator("#learn-token h2")).to_contain_text(f"Token {DIFFER + 1} of")
    expect(page.locator("#learn-plot .js-plotly-plot")).to_be_visible()
    tokens.nth(6).click()
    expect(page.locator("#learn-token h2")).to_contain_text("Token 7 of")
    stretch = page.locator("#learn-stretch .token")
    expect(stretch).to_have_count(guess.last - guess.first + 1)
    expect(page.locator("#learn-stretch .token.led")).to_have_count(0)
    labels = [one.get_attribute("aria-label") for one in stretch.all()]
    assert labels == guess.text.split(), "nobody knows yet who leads"
    expect(page.locator("#learn-reveal")).not_to_contain_text(guess.answer)
    wrong = next(name for name in guess.experts if name != guess.answer)
    page.locator("#learn-choice").get_by_text(wrong).click()
    expect(page.locator("#learn-reveal")).to_contain_text(f"No, it was {guess.answer}.")
    expect(page.locator("#learn-stretch .token.led")).to_have_count(guess.last - guess.first + 1)
    go_to(page, 6)
    expect(page.locator("#learn-below")).to_contain_text("Bare base")
    expect(page.locator("#learn-reveal")).not_to_contain_text("No, it was")
    go_to(page, 5)
    expect(page.locator("#learn-reveal")).to_contain_text(f"No, it was {guess.answer}.")
    assert serious(page, "#learn-tab") == [] and page.wrong == []


def test_try_it_opens_the_live_tab_with_the_prompt(server, visit):
    page = visit(server.url)
    open_learn(page)
    go_to(page, 1)
    button, prompt = page.locator("#learn-try button"), page.locator("#prompt textarea")
    expect(button).to_have_attribute("data-step", STEPS[1].title)
    button.evaluate("node => { node.dataset.step = 'The step before' }")  # words are drawn first
    button.click()
    page.evaluate(FRAMES)
    expect(page.locator("#learn-words")).to_be_visible()
    button.evaluate(f"node => {{ node.dataset.step = '{STEPS[1].title}' }}")
    expect(prompt).to_have_value(STEPS[1].prompt)
    open_again = page.get_by_role("tab", name="Learn", exact=True)
    open_again.click()
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[1].title)
    go_to(page, 4)
    built_late = page.add_style_tag(content="#compare-prompt { display: none }")
    page.evaluate(LOOKS)
    page.locator("#learn-try button").click()
    page.wait_for_function("window.looks > 60")
    built_late.evaluate("style => style.remove()")
    expect(page.locator("#compare-prompt textarea")).to_have_value(STEPS[4].prompt)
    assert page.get_by_role("tab").all_inner_texts() == list(SHOWN), "opening a tab moves no other"

    # a prompt from Pool can be undone, too: it is put in the place of what was typed
    opened(page, "Ask")
    prompt.fill("My own words")
    opened(page, "Pool")
    page.locator("#pool-verdicts .html-container").evaluate(OFFER)
    page.locator("#pool-verdicts .rm-try").evaluate("node => node.click()")
    expect(prompt).to_have_value("Which boats?")
    page.keyboard.press("Control+Z")
    expect(prompt).to_have_value("My own words")
    assert page.wrong == []


def test_a_phone_scrolls_no_step_sideways(server, visit):
    page = visit(server.url, width=390, theme="dark")
    by_the_head(page)
    page.set_viewport_size({"width": 360, "height": 900})
    pool = page.get_by_role("region", name="The pool")
    assert pool.evaluate("node => node.scrollWidth <= node.clientWidth"), "a small phone"
    page.set_viewport_size({"width": 390, "height": 900})
    for place, step in enumerate(STEPS):
        expect(page.locator("#learn-words h2")).to_have_text(step.title)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, step.title
        assert page.evaluate(STRAY) == [], step.title
        if place < 9:
            page.locator("#learn-next").click()
    assert serious(page, "#learn-tab") == []

    # nor does a fold of Pool
    opened(page, "Pool")
    folds = page.locator("#pool-tab button.label-wrap:not(.open):visible")
    folds.evaluate_all("all => all.forEach((fold) => fold.click())")
    expect(page.locator("#pool-tab button.label-wrap.open")).to_have_count(3)
    for details in page.locator("#pool-tab details").all():
        details.evaluate("node => node.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_function(f"({STRAY})().length === 0")  # they open step by step
    assert page.wrong == []


def test_a_reload_and_a_link_open_the_same_step(server, visit):
    page = visit(server.url)
    open_learn(page)
    go_to(page, 3)
    page.wait_for_function("location.hash === '#learn?step=4'")
    page.reload()
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[3].title)
    friend = page.context.new_page()
    friend.set_viewport_size({"width": 390, "height": 900})
    friend.goto(f"{server.url}/#learn?step=6")
    expect(friend.locator("#learn-words h2")).to_have_text(STEPS[5].title)
    friend.wait_for_function(AT_ITS_PLACE)
    friend.close()
    page.go_back()
    expect(page.locator("#prompt textarea")).to_be_visible()
    page.go_forward()
    expect(page.locator("#learn-words h2")).to_have_text(STEPS[3].title)
    assert not page.wrong


def opened(page, name: str) -> None:
    open_tab(page, name)
    expect(page.locator(SHOWN[name]).first).to_be_visible()


def test_at_twice_its_size_nothing_is_cut_or_scrolled_to(server, visit):
    page = visit(server.url, width=640)  # a window of 1280 pixels, zoomed to 200 %
    for name in SHOWN:
        opened(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 640, name
        assert page.evaluate(STRAY) == [], name
    page.set_viewport_size({"width": 1280, "height": 900})  # its text alone
    size = "parseFloat(getComputedStyle(document.querySelector('#hero p')).fontSize)"
    normal = page.evaluate(size)
    page.evaluate(LARGE)
    page.wait_for_function(f"Math.abs({size} - 2 * {normal}) < 0.01")  # it grows step by step
    for name in SHOWN:
        opened(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280, name
        assert page.evaluate(CUT) == [] and page.evaluate(STRAY) == [], name
    assert not page.wrong
