"""Links, the browser's history and a reload, in a real Chromium."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser import PATIENCE, ask_page, visits
from tests.fake_ramole import WORDS
from tests.test_browser_ask import ask

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A page whose model answers eight tokens at once."""
    with ask_page(tmp_path_factory.mktemp("link")) as server:
        yield server


@pytest.fixture
def visit(chromium):
    """Open a page in a fresh context; every request and page error is kept."""
    with visits(chromium) as open_page:
        yield open_page


def copied(page: Page, kind: str) -> str:
    """What a button of the answer puts on the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(f"#takeaway .{kind}").click()
    expect(page.locator(f"#takeaway .{kind}")).to_have_text("Copied")
    return page.evaluate("navigator.clipboard.readText()")


def test_a_link_asks_a_friend_the_same_and_opens_its_token(quick, visit):
    page = visit(quick.url)
    ask(page, "Which <b>boats</b>?\n${1}")
    page.locator("#answer .token").nth(2).click()
    expect(page.locator("#token h2")).to_contain_text("lie")
    link = copied(page, "link")
    assert "boats" not in link  # packed, and behind the #, so that no server sees it
    assert page.url.endswith(link.partition("#")[2])
    assert "prompt='Which <b>boats</b>?\\n${1}'" in copied(page, "python")

    friend = visit(quick.url)
    friend.goto("about:blank")
    friend.goto(link)
    expect(friend.locator("#prompt textarea")).to_have_value("Which <b>boats</b>?\n${1}")
    expect(friend.locator("#answer .token")).to_have_count(len(WORDS))
    expect(friend.locator("#token h2")).to_contain_text("lie")
    assert not friend.wrong and not any("boats" in asked for asked in friend.requested)


def test_a_reload_and_the_history_work_and_a_broken_link_is_a_sentence(quick, visit):
    page = visit(quick.url)
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
    page.goto(f"{quick.url}/#ask?r=abcdef")
    expect(page.locator("#notice .notice.wrong")).to_contain_text("cannot be read")
    ask(page)
    assert not page.wrong
