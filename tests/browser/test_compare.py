"""The tab Compare, links, the history and a reload, in Chromium over a fake system."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.test_ask import ask
from tests.support.browser import (
    LONG,
    ask_page,
    copied,
    fresh_page,
    lost_focus,
    refused,
    serious,
    stopped_within,
    visits,
)
from tests.support.fake_ramole import WORDS
from ui.parts.events import FAILED


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ask_page(tmp_path_factory.mktemp("compare")) as one:
        yield one


@pytest.fixture
def at_compare(chromium):
    with visits(chromium, tab="Compare", until=["#compare-prompt textarea"]) as open_page:
        yield open_page


def test_one_prompt_two_ways_then_three(server, at_compare):
    page = at_compare(server.url)
    page.locator("#compare-prompt textarea").fill("Which boats?")
    page.locator("#compare-prompt textarea").press("Enter")
    tokens = page.locator("#compare-answer-0 .token")
    expect(page.locator("#compare-head-1")).to_contain_text("base")
    expect(tokens).to_have_count(len(WORDS))
    expect(page.locator("#compare-head-0")).to_contain_text("ramole_plus, k = 3")
    expect(page.locator("#compare-answer-0 .legend li")).to_have_count(4)
    expect(page.locator("#compare-answer-1 .token.differs")).to_have_count(0)
    expect(page.locator("#compare-answer-2")).to_be_hidden()
    expect(page.locator("#compare-head-0 .verdict")).to_have_text(
        "By ramole_plus: ant, bee and cat."
    )
    expect(page.locator("#compare-head-1 .verdict")).to_have_text(re.compile("chose the base"))
    page.locator("#compare-prompt textarea").fill("Another question")
    expect(page.locator("#compare-asked .asked")).to_contain_text("Which boats?")
    places = "ids => ids.map((id) => document.querySelector(id).getBoundingClientRect().top)"
    asked, shown = page.evaluate(places, ["#compare-asked", "#compare-columns"])
    assert asked < shown, "the question stands above its answers"
    page.locator("#compare-prompt textarea").fill("Which boats?")
    tokens.nth(2).click()
    expect(page.locator("#compare-token")).to_contain_text("Column 1: ramole_plus, k = 3")
    expect(page.locator("#compare-token h2")).to_contain_text("Token 3 of 8")
    page.locator("#compare-count").get_by_text("3", exact=True).click()
    expect(page.locator("#compare-answer-2")).to_be_visible()
    page.locator("#compare-button").click()
    expect(page.locator("#compare-head-2")).to_contain_text("mixture")
    expect(page.locator("#compare-button")).to_be_enabled()
    assert page.wrong == []
    assert serious(page, "#compare-tab") == []
    assert lost_focus(page) == []


def test_a_phone_shows_the_columns_below_each_other(server, at_compare):
    page = at_compare(server.url, width=390, theme="dark")
    page.locator("#compare-prompt textarea").fill("Which boats?")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-answer-1 .token")).to_have_count(len(WORDS))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    first, second = (page.locator(f"#compare-answer-{n}").bounding_box() for n in (0, 1))
    assert second["y"] > first["y"] + first["height"]
    expect(page.locator("#compare-button")).to_be_enabled()
    assert serious(page, "#compare-tab") == []
    assert lost_focus(page) == []


def test_stop_ends_every_column(tmp_path, at_compare):
    with ask_page(tmp_path, **LONG) as slow:
        page = at_compare(slow.url)
        page.locator("#compare-prompt textarea").fill("Which boats?")
        page.locator("#compare-button").click()
        expect(page.locator("#compare-answer-1 .token").first).to_be_visible()
        page.locator("#compare-prompt textarea").press("Enter")
        expect(page.locator("#compare-held")).to_contain_text("A comparison is on its way")
        expect(page.locator("#compare-bar > button:visible")).to_have_text(["Stop"])
        stopped_within(page, "#compare-stop", "#compare-notice")
        expect(page.locator("#compare-head-0")).to_contain_text("stopped by you")
        expect(page.locator("#compare-bar > button:visible")).to_have_text(["Compare"])


def test_a_refused_comparison_can_be_asked_again(server, at_compare):
    page = at_compare(server.url)
    page.locator("#compare-prompt textarea").fill("Which boats?")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-head-1")).to_contain_text("base")
    page.route("**/queue/join*", lambda route: refused(route, True))
    page.locator("#compare-prompt textarea").fill("And where?")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-notice [role=alert]")).to_have_text(FAILED)
    expect(page.locator("#compare-asked .asked")).to_contain_text("And where?")
    expect(page.locator("#compare-columns .token")).to_have_count(0)
    expect(page.locator("#compare-bar > button:visible")).to_have_text(["Compare"])
    page.unroute("**/queue/join*")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-answer-1 .token")).to_have_count(len(WORDS))
    expect(page.locator("#compare-button")).to_be_enabled()
    assert page.wrong == []


def test_a_link_and_a_reload_compare_the_same_again(server, at_compare):
    page = at_compare(server.url)
    expect(page.locator("#compare-copy button")).to_be_hidden()
    page.locator("#compare-prompt textarea").fill("Which <b>boats</b>?")
    page.locator("#compare-count").get_by_text("3", exact=True).click()
    page.locator("#compare-button").click()
    expect(page.locator("#compare-head-2")).to_contain_text("mixture")
    link = copied(page, "#compare-copy button")
    assert "#compare?q=" in link and "boats" not in link
    friend = page.context.new_page()
    friend.goto(link)
    for again in (friend, page):
        if again is page:
            page.reload()
        expect(again.locator("#compare-head-2")).to_contain_text("mixture")
        expect(again.locator("#compare-answer-2 .token")).to_have_count(len(WORDS))
        expect(again.locator("#compare-prompt textarea")).to_have_value("Which <b>boats</b>?")
    assert page.wrong == []


NOTHING_KEPT = """
for (const name of ['sessionStorage', 'localStorage']) {
  Object.defineProperty(window, name, { get() { throw new DOMException('', 'SecurityError'); } });
}
"""
"""A browser that keeps no site data."""


def test_in_a_browser_that_keeps_no_site_data_the_page_and_its_links_work(
    server, at_compare, chromium
):
    page = at_compare(server.url)
    page.locator("#compare-prompt textarea").fill("Which boats?")
    page.locator("#compare-button").click()
    expect(page.locator("#compare-head-1")).to_contain_text("base")
    comparison = copied(page, "#compare-copy button")
    page.get_by_role("tab", name="Ask").click()
    ask(page)
    question = copied(page, "#takeaway .link")
    with chromium.new_context() as context:
        context.add_init_script(NOTHING_KEPT)
        bare = fresh_page(context, server.url)
        expect(bare.locator("#answer .token")).to_have_count(len(WORDS))
        expect(bare.locator("#notice")).to_contain_text("Recorded earlier")
        ask(bare, "Whose boats?")
        bare.goto("about:blank")
        bare.goto(question)
        expect(bare.locator("#prompt textarea")).to_have_value("Which boats?")
        expect(bare.locator("#timing details")).to_be_visible()
        bare.goto("about:blank")
        bare.goto(comparison)
        expect(bare.locator("#compare-answer-1 .token")).to_have_count(len(WORDS))
        assert bare.wrong == []


HELD = """
const send = window.fetch, freed = new Promise((go) => { window.free = go; });
window.fetch = async (what, how) => {
  if (String(what.url || what).includes('/queue/join')) await freed;
  return send(what, how);
};
"""
"""A network over which no event goes before `free` is called."""


def test_what_was_typed_before_the_page_had_loaded_is_not_asked_by_itself(server, chromium):
    with chromium.new_context() as context:
        context.add_init_script(HELD)
        page = fresh_page(context, server.url)
        page.get_by_role("tab", name="Compare").click()
        page.locator("#compare-prompt textarea").fill("Which boats?")
        with page.expect_request(lambda sent: (sent.post_data_json or {}).get("data") == [""]):
            page.evaluate("window.free()")
        page.wait_for_timeout(2000)  # what the address asks is asked now
        assert page.url.endswith("#compare")
        assert page.locator("#compare-asked .asked").count() == 0
        expect(page.locator("#compare-prompt textarea")).to_have_value("Which boats?")
        assert page.wrong == []


# --- links, the browser's history and a reload ----------------------------------------------------


def test_a_link_asks_a_friend_the_same_and_opens_its_token(server, visit):
    page = visit(server.url)
    ask(page, "Which <b>boats</b>?\n${1}")
    page.locator("#answer .token").nth(2).click()
    expect(page.locator("#token h2")).to_contain_text("lie")
    link = copied(page, "#takeaway .link")
    assert "boats" not in link  # packed, and behind the #, so that no server sees it
    assert page.url.endswith(link.partition("#")[2])
    assert "prompt='Which <b>boats</b>?\\n${1}'" in copied(page, "#takeaway .python")

    friend = visit(server.url)
    friend.goto("about:blank")
    friend.goto(link)
    expect(friend.locator("#prompt textarea")).to_have_value("Which <b>boats</b>?\n${1}")
    expect(friend.locator("#answer .token")).to_have_count(len(WORDS))
    expect(friend.locator("#token h2")).to_contain_text("lie")
    assert not friend.wrong and not any("boats" in asked for asked in friend.requested)


def test_a_reload_and_the_history_work_and_a_broken_link_is_a_sentence(server, visit):
    page = visit(server.url)
    ask(page)
    page.locator("#prompt textarea").fill("typed, not asked")
    page.reload()
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    expect(page.locator("#prompt textarea")).to_have_value("typed, not asked")

    # tabs are in the browser's history
    shown = page.get_by_role("tab", selected=True).first
    page.get_by_role("tab", name="Compare").first.click()
    expect(page.locator("#compare-prompt")).to_be_visible()
    assert page.url.endswith("#compare")
    page.go_back()
    expect(shown).to_have_text("Ask")
    page.go_forward()
    expect(shown).to_have_text("Compare")
    page.reload()
    expect(page.locator("#compare-prompt")).to_be_visible()

    page.goto("about:blank")
    page.goto(f"{server.url}/#ask?r=abcdef")
    expect(page.locator("#notice .notice.wrong")).to_contain_text("cannot be read")
    ask(page, "Which ships?")
    page.reload()
    expect(page.locator("#talk .asked")).to_contain_text("Which ships?")
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    assert not page.wrong


def test_an_answer_takes_the_place_of_what_the_address_asked_for(server, visit):
    page = visit(server.url)
    page.goto("about:blank")
    page.goto(f"{server.url}/#ask?run=01-a-made-up-run")
    expect(page.locator("#answer .token")).to_have_count(len(WORDS))
    ask(page, "Which ships?")
    expect(page).to_have_url(re.compile(r"#ask[?]r="))
    own = page.url
    page.evaluate("window.same = true")
    for name in ("Compare", "Ask"):
        page.get_by_role("tab", name=name).first.click()
    expect(page).to_have_url(own)
    page.go_back()
    expect(page.locator("#compare-prompt")).to_be_visible()
    page.go_back()
    expect(page.locator("#prompt textarea")).to_be_visible()
    assert page.evaluate("window.same") and page.url == own, "nothing is loaded anew"
    assert not page.wrong
