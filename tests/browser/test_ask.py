"""The tab Ask in a real Chromium: ask, stop, pick a token, keyboard alone, phone, loading."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.support.ask_page import FAINT, MANY, OPTIONS_PROMPT, PINNED
from tests.support.browser import (
    LONG,
    PATIENCE,
    ask_page,
    copied,
    elsewhere,
    enter,
    fill_number,
    fresh_page,
    lost_focus,
    refused,
    serious,
    stopped_within,
    streams,
    taken,
)
from tests.support.fake_ramole import LAYERS, MODULES, WORDS
from tests.support.serving import wait_until
from ui.charts.explained import spell
from ui.parts.events import FAILED


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A page whose model answers eight tokens at once, and explains while `gate` is there."""
    root = tmp_path_factory.mktemp("quick")
    gate = root / "gate"
    gate.touch()
    with ask_page(root, explain_gate=gate, options=1) as server:
        yield SimpleNamespace(url=server.url, gate=gate)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A page whose model comes once `gate` is there, and whose answers are `LONG`."""
    root = tmp_path_factory.mktemp("slow")
    gate = root / "gate"
    with ask_page(root, gate=gate, **LONG) as server:
        yield SimpleNamespace(url=server.url, gate=gate)


@contextmanager
def answered(page: Page) -> Iterator[None]:
    """Wait until what is asked inside the block has its answer in the place of an older one."""
    page.locator("#timing").evaluate(
        "n => n.querySelector('details')?.setAttribute('data-old', '')"
    )
    yield
    expect(page.locator("#timing details:not([data-old])")).to_be_visible()


def ask(page: Page, prompt: str = "Which boats?") -> None:
    """Type, press Enter, and wait for the end of the answer."""
    with answered(page):
        enter(page, prompt)
    expect(page.locator("#ask-button")).to_be_enabled()


def head_lines(page: Page) -> list[int]:
    """The lines of the page's head, in windows of two widths."""
    found = []
    for width in (1440, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        lines = "n => n.offsetHeight / document.querySelector('#hero h1').offsetHeight"
        found.append(int(page.locator("#head").evaluate(lines)))
    return found


def letters(page: Page) -> str:
    """Each token's letter where a run of one expert begins, `.` elsewhere."""
    return "".join(
        token.get_attribute("data-letter") or "." for token in page.locator("#answer .token").all()
    )


def test_an_answer_arrives_with_colour_letter_and_words(quick, visit):
    page = visit(quick.url)
    painted = page.evaluate("performance.getEntriesByType('paint').at(-1).startTime")
    assert painted < PATIENCE  # 2 s on an idle machine; here others work beside it
    ask(page)
    tokens = page.locator("#answer .token")
    expect(tokens).to_have_count(len(WORDS))
    assert letters(page) == "A.B.C.A."
    assert (
        tokens.nth(2).get_attribute("aria-label") == "<b>lie</b>: expert B, bee, 4.5 times likelier"
    )
    assert (
        tokens.nth(4).get_attribute("aria-label") == "line break: expert C, cat, 4.5 times likelier"
    )
    assert tokens.nth(3).get_attribute("aria-label") == "${here}: no adapter needed"
    assert "B bee 4.5 times likelier" in tokens.nth(2).get_attribute("title")
    colour = "n => getComputedStyle(n).backgroundColor"
    assert len({tokens.nth(i).evaluate(colour) for i in (0, 2, 3, 4)}) == 4
    line = tokens.nth(2).evaluate("n => getComputedStyle(n).backgroundImage")
    assert "rgb(86, 180, 233) 0%, rgb(86, 180, 233) 100%" in line, "it is the second expert's"
    expect(page.locator("#answer .legend li")).to_have_count(4)
    assert (
        page.locator("#answer .legend li").first.inner_text().split()
        == "A ant 38 % of the answer".split()
    )
    expect(page.locator("#answer .meaning")).to_contain_text("Coloured: an adapter made")
    expect(page.locator("#beside .plain")).to_contain_text("The boats <b>lie</b> ${here}")
    expect(page.locator("#trace-npz")).to_be_hidden()
    page.locator("#timing summary").click()
    expect(page.locator("#trace-npz")).to_be_visible()
    behind = page.locator("#trace-npz-file")
    behind.evaluate("n => n.classList.remove('hidden')")  # as Gradio at times forgets it
    expect(behind).to_be_hidden()
    expect(page.locator("#found .taken li")).to_have_count(3)
    expect(page.locator("#found .others li")).to_have_text(re.compile("dog.*0.300"))

    # what is copied is the answer without the signs for breaks and the end
    assert copied(page, "#answer .copy") == "".join(WORDS)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#answer .text'))")
    page.keyboard.press("Control+C")
    assert page.evaluate("navigator.clipboard.readText()") == "".join(WORDS)

    page.locator("#answer .token").nth(1).click()
    expect(page.locator("#token-plot .js-plotly-plot")).to_be_visible()
    expect(page.locator("#likely table")).to_have_count(2)
    assert serious(page, "#ask-tab") == []
    assert elsewhere(page, quick.url) == page.wrong == []


def test_a_picked_token_opens_its_weights_and_what_else_was_likely(quick, visit):
    page = visit(quick.url)
    page.set_viewport_size({"width": 1440, "height": 900})
    ask(page)
    page.locator("#answer .token").nth(3).click()
    expect(page.locator("#token")).to_contain_text("Token 4 of 8")
    for part in ("#token h2", "#answer .token >> nth=3", "#likely table >> nth=0"):
        expect(page.locator(part)).to_be_in_viewport()
    assert page.evaluate("scrollY") == 0, "the panel stands beside the answer"
    expect(page.locator("#token")).to_contain_text("The base alone would have said it")
    expect(page.locator("#token-plot .js-plotly-plot")).to_be_visible()
    answer, base, token, plot = (
        page.locator(part).bounding_box()
        for part in ("#answer", "#beside", "#token", "#token-plot")
    )
    assert plot["x"] == answer["x"] < token["x"], (
        "what is long is under the answer, in both columns"
    )
    assert plot["y"] >= base["y"] + base["height"]
    expect(page.locator("#likely table")).to_have_count(2)
    expect(page.locator("#likely .chosen code")).to_have_text("${here}")
    page.get_by_role("button", name="Contributions and weights as a table").click()
    expect(page.locator("#token-panel table").last).to_contain_text("down_proj")
    page.locator("#token .close").click()
    expect(page.locator("#token-panel")).to_be_hidden()
    expect(page.locator("#answer .token").nth(3)).to_be_focused()
    same = page.locator("#answer .token").nth(3)
    for opens in (same.click, lambda: same.press("Enter")):
        # Gradio drops a pick that comes while it waits for the one before
        with page.expect_request("**/queue/join*"):  # then that one has its answer
            opens()
        expect(page.locator("#token-panel")).to_be_visible()
        expect(page.locator("#token")).to_contain_text("Token 4 of 8")
        page.locator("#token .close").press("Escape")
        expect(page.locator("#token-panel")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#token")).to_contain_text("Token 5 of 8")
    page.locator("#token .close").press("Escape")
    expect(page.locator("#token-panel")).to_be_hidden()

    # what if an adapter were off from a token on
    page.locator("#answer .token").nth(3).click()
    page.locator("#what-if > button").click()
    page.locator("#what-go").click()
    expect(page.locator("#what-notice")).to_contain_text("Choose what to switch off")
    page.locator("#what-adapter input").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("option", name="bee")).to_be_hidden()
    expect(page.locator("#token-panel")).to_be_visible()
    page.keyboard.press("Tab")  # a list that has the focus opens by no click
    page.locator("#what-adapter input").click()
    page.get_by_role("option", name="bee").click()
    expect(page.locator("#what-measured")).to_contain_text("if bee had not been found")
    page.locator("#what-go").click()
    expect(page.locator("#what-notice")).to_contain_text("as though bee had never been found.")
    expect(page.locator("#branch .token")).to_have_count(3 + len(WORDS))
    expect(page.locator("#what-likely table")).to_have_count(2)
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page, "#ask-tab") == [] and page.wrong == []


def test_weights_are_found_on_examples_and_kept_under_a_name(quick, visit):
    page = visit(quick.url)
    expect(page.locator("#pairs")).to_be_hidden()
    page.locator("#more > button").click()
    page.locator("#method input").click()
    page.get_by_role("option", name="lorahub").click()
    page.locator("#pairs-text textarea").fill('say => red\n{"inputs": 4}')
    enter(page, "Which boats?")
    expect(page.locator("#notice")).to_contain_text("Line 2 of the examples")
    expect(page.locator("#ask-button")).to_be_enabled()
    page.locator("#pairs-text textarea").fill("say => red")
    ask(page)
    expect(page.locator("#timing")).to_contain_text("40 steps of search")
    page.locator("#keep-name textarea").fill("reds")
    page.locator("#keep-button").click()
    expect(page.locator("#mix input")).to_have_value("reds")
    page.locator("#keep-name textarea").fill("reds")
    page.locator("#keep-name textarea").press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("reds")
    assert page.wrong == []


LAST_END = """() => Math.max(...document.getAnimations()
  .filter((one) => one.effect.target.closest('.path'))
  .map((one) => one.effect.getComputedTiming().endTime))"""


def test_how_an_answer_came_about_part_after_part_or_at_once(quick, visit):
    page = visit(quick.url)
    ask(page)
    page.locator("#watch").click()
    expect(page.locator("#path .path > ol > li")).to_have_count(5)
    moving = "document.getAnimations().filter(one => one.effect.target.closest('.path')).length"
    assert page.evaluate(moving) > 5
    assert 12_000 <= page.evaluate(LAST_END) <= 16_000, "about fifteen seconds"
    expect(page.locator("#path .piece")).to_be_visible()
    page.locator("#path .at-once").check()
    assert page.evaluate(moving) == 0
    assert serious(page, "#path") == []
    page.locator("#path .at-once").uncheck()
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0

    # and the trace can be taken away
    page.locator("#timing summary").click()
    with np.load(taken(page, "#trace-npz").path(), allow_pickle=False) as trace:
        assert trace["weights"].shape == (2 + len(WORDS), len(LAYERS), len(MODULES), 3)
    file = taken(page, "#trace-json")
    told = json.loads(Path(file.path()).read_text("utf-8"))
    assert told["answer"] == "".join(WORDS) and file.suggested_filename.endswith(".json")

    # on paper stands what was asked and answered, and nothing to press
    page.emulate_media(media="print")
    expect(page.locator("#answer .token").first).to_be_visible()
    for away in ("#prompt", "#ask-button", "#status", "#more"):
        expect(page.locator(away)).to_be_hidden()
    shown = page.locator("button:visible").evaluate_all("all => all.map(one => one.outerHTML)")
    assert shown == []
    assert page.wrong == []


def test_keyboard_alone(quick, visit):
    page = visit(quick.url)
    page.keyboard.type("Which boats?")  # the prompt has the focus from the start
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("And where?")
    expect(page.locator("#prompt textarea")).to_have_value("Which boats?\nAnd where?")
    with answered(page):
        page.keyboard.press("Enter")
    expect(page.locator("#prompt textarea")).to_have_value("Which boats?\nAnd where?")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('token')"):
            break
    focus = "document.activeElement.dataset.index"
    assert page.evaluate(focus) == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focus) == "2"
    expect(page.locator("#token")).to_contain_text("Token 3 of 8")
    page.keyboard.press("End")
    expect(page.locator("#token")).to_contain_text("Token 8 of 8")
    page.keyboard.press("ArrowUp")
    assert int(page.evaluate(focus)) < 5  # the line above the line break
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('token')")
    assert lost_focus(page) == []
    assert page.wrong == []


LATE = """
const send = window.fetch, wait = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));
window.held = window.joined = window.caught = 0;
window.fetch = async (what, how) => {
  const answer = await send(what, how), path = String(what.url || what);
  if (path.includes('/queue/join')) window.joined += 1;
  if (!path.includes('/queue/data')) return answer;
  const late = new TransformStream({
    async transform(chunk, out) {
      const text = new TextDecoder().decode(chunk);
      const at = text.indexOf('data: {"msg":"close_stream"');
      if (at < 0) return out.enqueue(chunk);
      out.enqueue(new TextEncoder().encode(text.slice(0, at)));
      const before = window.joined;
      window.held += 1;
      for (let n = 0; n < 1800 && window.joined === before; n++) await wait(0.1);
      window.caught += window.joined > before;
      await wait(0.3);
      out.enqueue(new TextEncoder().encode(text.slice(at)));
    },
  });
  return new Response(answer.body.pipeThrough(late), answer);
};
"""
"""A network that brings the last message of a stream of events after the next event is sent."""


def test_a_question_that_is_sent_while_the_stream_of_events_ends_is_answered(quick, chromium):
    with chromium.new_context() as context:
        context.add_init_script(LATE)
        page = fresh_page(context, quick.url)
        expect(page.locator("#answer .token").first).to_be_visible()
        for prompt in ("Which boats?", "And where?"):
            held = page.evaluate("window.held")
            with answered(page):
                enter(page, prompt)
            page.wait_for_function("held => window.held > held", arg=held)
        assert page.evaluate("window.caught") > 0
        assert page.wrong == []


def test_an_error_is_one_sentence_and_nothing_typed_is_lost(quick, visit):
    page = visit(quick.url)
    page.locator("#more button").first.click()
    page.get_by_label("Their weights").fill("half")
    page.locator("#prompt textarea").fill("Which boats?")
    page.locator("#ask-button").click()
    expect(page.locator("#notice [role=alert]")).to_have_text(re.compile("weights 'half' are not"))
    expect(page.locator("#prompt textarea")).to_have_value("Which boats?")
    expect(page.get_by_label("Their weights")).to_have_value("half")
    expect(page.locator("#ask-button")).to_be_enabled()
    page.get_by_label("Their weights").fill("")
    ask(page)
    assert "Traceback" not in page.locator("body").inner_text()

    # a live example is asked at once, and other methods say what they do
    expect(page.locator("#examples-live")).to_be_hidden()
    page.locator("#examples-fold > button").click()
    with answered(page):
        page.locator("#examples-live button", has_text="Question to SQL").click()
        expect(page.locator("#talk .turn")).to_contain_text("Bergen")
    expect(page.locator("#prompt textarea")).to_have_value("Which boats?")
    page.locator("#method input").click()
    page.get_by_role("option", name="base: ").click()
    expect(page.locator("#about")).to_contain_text("no adapter")
    with answered(page):
        page.locator("#ask-button").click()
    expect(page.locator("#answer .meaning")).to_contain_text("base model alone")
    expect(page.locator("#answer .legend")).to_be_hidden()
    expect(page.locator("#found .verdict")).to_have_text(re.compile("You chose the base"))
    page.locator("#answer .token").nth(1).click()
    expect(page.locator("#token .alone")).to_be_visible()
    expect(page.locator("#token-plot")).to_be_hidden()


def test_a_value_out_of_range_leaves_the_form_in_use(quick, visit):
    page = visit(quick.url)
    page.locator("#more > button").click()
    page.locator("#method input").click()
    page.get_by_role("option", name="mixture").click()
    page.locator("#advanced > button").click()
    rounds = page.get_by_label("How often it is stirred")
    fill_number(rounds, "12")  # 1 to 9
    page.locator("#prompt textarea").fill("Which boats?")
    page.locator("#ask-button").click()
    expect(page.locator("#notice [role=alert]")).to_have_text(FAILED)
    expect(page.locator("#ask-button")).to_be_enabled()
    expect(page.locator("#stop-button")).to_be_hidden()
    expect(page.locator("#notice progress")).to_have_count(0)
    expect(page.locator("#answer .caret")).to_have_count(0)
    expect(page.locator("#beside")).to_be_hidden()
    expect(page.locator("#prompt textarea")).to_have_value("Which boats?")
    fill_number(rounds, "5")
    ask(page)
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    assert page.wrong == []


def test_where_the_panels_of_an_answer_fail_its_text_stays_and_one_can_ask_again(quick, visit):
    page = visit(quick.url)
    page.locator("#prompt textarea").fill("Which boats?")
    refusals = chain([False, True], repeat(False))  # of the begin, the end, and what comes after
    page.route("**/run/**", lambda route: refused(route, next(refusals)))
    page.locator("#ask-button").click()
    expect(page.locator("#notice [role=alert]")).to_have_text(FAILED)
    expect(page.locator("#answer .token").first).to_be_visible()
    ask(page)
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    assert page.wrong == []


def test_a_conversation_goes_on_after_an_event_that_failed(quick, visit):
    page = visit(quick.url)
    ask(page)
    page.locator("#on-box input").check()
    page.route("**/queue/join*", lambda route: refused(route, True))
    page.locator("#prompt textarea").fill("And where?")
    page.locator("#ask-button").click()
    expect(page.locator("#notice [role=alert]")).to_have_text(FAILED)
    expect(page.locator("#new-button")).to_be_enabled()
    page.unroute("**/queue/join*")
    ask(page, "And where?")
    expect(page.locator("#talk .turn")).to_have_count(2)
    assert page.wrong == []


def test_a_conversation_of_two_turns(quick, visit):
    page = visit(quick.url)
    ask(page, "Which boats?")
    expect(page.locator("#talk .turn")).to_have_count(1)
    expect(page.locator("#talk .number")).to_have_count(0)
    expect(page.locator("#beside .same")).to_be_hidden()
    expect(page.locator("#stop-button")).to_be_hidden()
    places = "(ids) => ids.map((id) => document.querySelector(id).getBoundingClientRect().top)"
    asked, above, shown = page.evaluate(places, ["#prompt", "#talk", "#answer"])
    assert asked < above < shown, "the question stands above its answer"
    page.locator("#prompt textarea").fill("And <b>where</b> ${x}?")
    page.locator("#on-box input").check()
    page.locator("#ask-button").click()
    expect(page.locator("#talk .turn")).to_have_count(2)
    expect(page.locator("#talk .now .asked")).to_contain_text("And <b>where</b> ${x}?")
    expect(page.locator("#timing")).to_contain_text("conversation")
    expect(page.locator("#prompt textarea")).to_have_value("")
    first = page.locator("#talk .turn").first
    expect(first.locator(".asked")).to_contain_text("Which boats?")
    expect(first.locator(".how")).to_have_text("ramole_plus: ant 0.900, bee 0.700, cat 0.500")
    expect(first.locator(".token.first")).to_have_count(4)
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    expect(page.locator("#beside .same")).to_be_visible()
    talk, shown, asked, button = page.evaluate(places, ["#talk", "#answer", "#prompt", "#ask-bar"])
    assert talk < shown < asked < button, "the input stands under the conversation"
    page.locator("#answer .token").nth(1).click()
    expect(page.locator("#token")).to_contain_text("Token 2 of 8")
    first.locator(".token").nth(2).click()
    expect(page.locator("#token")).to_contain_text("Turn 1, token 3 of 8")
    expect(page.locator("#likely .chosen code")).to_have_text(spell(WORDS[2]))
    page.keyboard.press("ArrowRight")
    expect(page.locator("#token")).to_contain_text("Turn 1, token 4 of 8")
    expect(page.locator("#ask-tab .token[aria-pressed]")).to_have_count(1)
    assert serious(page, "#ask-tab") == []
    enter(page, "And when?")
    expect(page.locator("#talk .turn")).to_have_count(3)
    expect(page.locator("#new-button")).to_be_enabled()
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#new-button").click()
    expect(page.locator("#talk")).to_be_hidden()
    expect(page.locator("#answer .token")).to_have_count(0)
    expect(page.locator("#prompt textarea")).to_be_focused()
    assert page.wrong == []


def test_after_a_reload_an_earlier_answer_is_text_that_opens_nothing(quick, visit):
    page = visit(quick.url)
    ask(page, "Which boats?")
    page.locator("#on-box input").check()
    ask(page, "And where?")
    first = page.locator("#talk .turn").first
    expect(first.locator(".token")).to_have_count(len(WORDS))
    page.reload()
    expect(page.locator("#talk .now .asked")).to_contain_text("And where?")
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    expect(page.locator("#ask-button")).to_be_enabled()
    expect(first.locator(".how")).to_have_text("ant, bee, cat")
    expect(first.get_by_role("group", name="Answer", exact=True)).to_have_text("".join(WORDS))
    expect(first.locator(".token, .text [role], .text [tabindex]")).to_have_count(0)
    assert "base model" not in first.inner_html()
    assert copied(page, ".copy", first) == "".join(WORDS)
    assert serious(page, "#ask-tab") == [] and page.wrong == []


NOT_UNDER_IT = """() => {
  const [token, panel] = ['#answer .token ~ .token', '#token'].map(
    (one) => document.querySelector(one).getBoundingClientRect());
  return token.bottom <= panel.top;
}"""
"""The second token is above the panel that belongs to it."""


def test_a_phone_shows_everything_within_its_width(quick, visit):
    page = visit(quick.url, width=390, theme="dark")
    ask(page)
    page.locator("#answer .token").nth(1).click()
    expect(page.locator("#token-plot .js-plotly-plot")).to_be_visible()
    expect(page.locator("#token h2")).to_be_in_viewport()
    expect(page.locator("#answer .token").nth(1)).to_be_in_viewport()
    page.wait_for_function(NOT_UNDER_IT)  # the page glides there
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#prompt", "#answer", "#beside", "#found", "#token", "#likely"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 391, part
    expect(page.locator("#likely table")).to_have_count(2)
    assert serious(page, "#ask-tab") == []


def test_a_recorded_run_leaves_the_form_alone_and_tags_say_what_is_not_as_usual(quick, visit):
    page = visit(quick.url)
    page.locator("#more > button").click()
    page.locator("#method input").click()
    page.get_by_role("option", name="mixture: ").click()
    tag = page.locator("#tags button", has_text="method mixture")
    expect(tag).to_be_visible()
    page.locator("#prompt textarea").fill("Half a quest")
    page.locator("#examples-recorded button").first.click()
    expect(page.locator("#talk .asked")).to_contain_text("Which boats?")
    expect(page.locator("#prompt textarea")).to_have_value("Half a quest")
    expect(tag).to_be_visible()
    tag.click()
    expect(page.locator("#tags button")).to_have_count(0)
    expect(page.locator("#more")).to_contain_text("Settings: the default method, up to 3 adapters")
    with answered(page):
        page.locator("#again-button").click()
    expect(page.locator("#prompt textarea")).to_have_value("Half a quest")
    expect(page.locator("#again-button")).to_be_hidden()
    expect(page.locator("#talk .asked")).to_have_count(1)

    # nor do a recorded run's own method and adapters go on to the next question
    page.locator("#examples-recorded button", has_text=PINNED.title).click()
    expect(page.locator("#timing")).to_contain_text("meteora, dog, cat, bee")
    expect(page.locator("#found .verdict")).to_have_text("You named dog, cat and bee.")
    ask(page, "And which boats?")
    expect(page.locator("#tags button")).to_have_count(0)
    expect(page.locator("#timing")).to_contain_text("ramole_plus, k = 3")

    # and the tag of a named adapter gives it up
    pinned = page.get_by_label("Exactly these adapters")
    pinned.click()
    page.get_by_role("option", name="dog").click()
    page.keyboard.press("Escape")
    expect(page.locator("#more .token")).to_have_text(["dog"])
    page.locator("#tags button", has_text="exactly dog").click()
    expect(page.locator("#more .token")).to_have_count(0)
    ask(page, "And those?")
    expect(page.locator("#timing")).to_contain_text("ramole_plus, k = 3")

    # an adapter under one percent, and what is beyond the first five, stand in a fold
    page.locator("#examples-recorded button", has_text=FAINT.title).click()
    rest = page.locator("#answer .legend details.rest summary")
    expect(rest).to_have_text("1 more, under 1 %")
    page.locator("#examples-recorded button", has_text=MANY.title).click()
    expect(rest).to_have_text("16 more")
    lines = "n => n.offsetHeight / parseFloat(getComputedStyle(n).lineHeight)"
    assert page.locator("#answer .legend").first.evaluate(lines) < 2

    # the usual methods stand first, the others under a line of their own
    page.locator("#method input").click()
    heads = "all => all.map((n) => getComputedStyle(n, '::before').content)"
    options = page.locator("#method [role=option]")
    expect(options.nth(5)).to_be_visible()
    assert options.evaluate_all(heads)[:7] == [*["none"] * 5, '"From papers"', "none"]
    assert page.wrong == []


def test_a_recorded_run_is_there_before_the_model_and_a_question_waits_for_it(slow, visit):
    page = visit(slow.url)
    expect(page.locator("#status")).to_contain_text(re.compile(r"Loading the model, \d+%"))
    assert head_lines(page) == [1, 1]
    page.locator("#examples-recorded button").first.click()
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    expect(page.locator("#notice")).to_have_text("Recorded earlier: A made-up run.")
    expect(page.locator("#talk .asked")).to_contain_text("Which boats?")
    expect(page.locator("#prompt textarea")).to_have_value("")
    page.locator("#answer .token").nth(2).click()
    expect(page.locator("#likely table")).to_have_count(2)
    assert page.locator("#status .ready").count() == 0
    enter(page, "And now?")
    expect(page.locator("#notice")).to_contain_text("your question is answered as soon as")
    slow.gate.touch()
    expect(page.locator("#status .ready")).to_be_visible()
    expect(page.locator("#answer .token").nth(3)).to_be_visible()
    stopped_within(page, "#stop-button", "#notice")
    assert head_lines(page) == [1, 1]


def test_stop_works_at_once_and_what_came_can_be_looked_into(slow, visit):
    slow.gate.touch()
    page = visit(slow.url)
    expect(page.locator("#status .ready")).to_be_visible()
    enter(page, "Which boats?")
    streams(page)
    for button in ("#watch", "#inspect-run"):  # no run is there yet, and the earlier one is gone
        expect(page.locator(button)).to_be_hidden()
    page.locator("#prompt textarea").press("Enter")  # asks nothing while an answer is on its way
    expect(page.locator("#held")).to_have_text(re.compile("wait for its end, or press Stop"))
    expect(page.locator("#ask-bar button:visible")).to_have_text(["Stop"])
    stopped_within(page, "#stop-button", "#notice")
    expect(page.locator("#ask-button")).to_be_visible()
    expect(page.locator("#timing")).to_contain_text("stopped by you")
    expect(page.locator("#inspect-run")).to_be_visible()
    count = page.locator("#answer .token").count()
    assert count >= 2
    page.locator("#answer .token").nth(1).click()
    expect(page.locator("#token")).to_contain_text(f"Token 2 of {count}")
    assert page.locator("#answer .token").count() == count
    expect(page.locator("#ask-button")).to_be_enabled()

    # what if stops as well
    page.locator("#what-if > button").click()
    page.locator("#what-adapter input").click()
    page.get_by_role("option", name="bee").click()
    for _ in range(3):  # on a busy machine it ended once by itself; why is not known (LOG)
        page.locator("#what-go").click()
        expect(page.locator("#branch .token ~ .token ~ .token")).not_to_have_count(0)
        if page.locator("#what-stop").is_visible():
            break
    stopped_within(page, "#what-stop", "#what-notice")
    assert page.wrong == []


def test_what_if_ends_where_another_token_is_opened_or_a_question_asked(slow, visit):
    slow.gate.touch()
    page = visit(slow.url)
    expect(page.locator("#status .ready")).to_be_visible()
    enter(page, "Which boats?")
    streams(page)
    stopped_within(page, "#stop-button", "#notice")
    page.locator("#answer .token").nth(1).click()
    page.locator("#what-if > button").click()
    go_on_without(page, "bee")
    page.locator("#answer .token").nth(0).click()
    expect(page.locator("#token")).to_contain_text("Token 1 of")
    nothing_branches(page)
    go_on_without(page, "cat")
    enter(page, "And where?")
    expect(page.locator("#talk .now .asked")).to_contain_text("And where?")
    streams(page)
    stopped_within(page, "#stop-button", "#notice")
    page.locator("#answer .token").nth(0).click()
    expect(page.locator("#token")).to_contain_text("Token 1 of")
    nothing_branches(page)
    assert page.wrong == []


def go_on_without(page: Page, adapter: str) -> None:
    """Answer from the token that is open on, without the adapter, and wait for the first tokens."""
    page.locator("#what-adapter input").click()
    page.get_by_role("option", name=adapter).click()
    page.locator("#what-go").click()
    expect(page.locator("#branch .token ~ .token ~ .caret").first).to_be_visible()


def nothing_branches(page: Page) -> None:
    """The panel is that of a token without a change, and the row of the batch is free."""
    expect(page.locator("#what-go")).to_be_visible()
    expect(page.locator("#what-notice")).to_have_text("")
    expect(page.locator("#branch .token, #branch .caret, #what-likely table")).to_have_count(0)


def test_a_second_token_opens_while_the_model_is_asked_about_the_first(quick, visit):
    quick.gate.unlink()
    page = visit(quick.url)
    ask(page)
    held = []
    page.route("**/assets/PlotlyPlot*", lambda route: held.append(route))
    page.locator("#answer .token").nth(2).click()
    expect(page.locator("#token h2")).to_contain_text("Token 3 of 8")
    expect(page.locator("#token-plot .empty")).to_be_visible()
    said = "n => getComputedStyle(n, '::after').content"
    assert page.locator("#token-plot .empty").evaluate(said) == '"Drawing the chart…"'
    page.wait_for_timeout(100)
    for route in held:
        route.continue_()
    expect(page.locator("#token-plot .js-plotly-plot")).to_be_visible()
    page.locator("#answer .token").nth(4).click()
    expect(page.locator("#token h2")).to_contain_text("Token 5 of 8")
    quick.gate.touch()
    expect(page.locator("#likely .chosen code")).to_have_text(spell(WORDS[4]))
    expect(page.locator("#token h2")).to_contain_text("Token 5 of 8")
    # of two that are picked before the first is there the second stays
    held = []
    page.route("**/gradio_api/run/**", lambda route: held.append(route))
    for count, n in enumerate((1, 6), 1):
        page.locator("#answer .token").nth(n).click()
        wait_until(lambda: page.wait_for_timeout(20) or len(held) == count, seconds=60)  # noqa: B023
    page.unroute("**/gradio_api/run/**")
    held[0].fulfill(response=held[0].fetch())
    held[1].continue_()
    expect(page.locator("#likely .chosen code")).to_have_text(spell(WORDS[6]))
    expect(page.locator("#token h2")).to_contain_text("Token 7 of 8")

    # a method's own options are asked with
    page.locator("#more > button").click()
    warmth = page.get_by_label("How warm the mixture is")
    expect(warmth).to_be_hidden()
    page.locator("#method input").click()
    page.get_by_role("option", name="mixture").click()
    page.locator("#advanced > button").click()
    expect(warmth).to_be_visible()
    expect(page.get_by_label("Slowly")).to_be_hidden()
    fill_number(warmth, "1.5")
    expect(page.locator("#tags")).to_contain_text("warmth 1.5")
    page.locator("#prompt textarea").fill(OPTIONS_PROMPT)
    page.locator("#ask-button").click()
    expect(page.locator("#notice")).to_have_text("The options are {'warmth': 1.5}.")
    assert page.wrong == []
