"""Several visitors at once in a real Chromium: they share a batch, or wait in a queue they see."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.ask_page import BUSY
from tests.support.browser import LONG, ask_page, enter, streams


@pytest.fixture(scope="module")
def roomy(tmp_path_factory):
    """A page with a row for everyone."""
    with ask_page(tmp_path_factory.mktemp("roomy"), **LONG) as server:
        yield server


def count(page: Page) -> int:
    return page.locator("#answer .token").count()


def stop(page: Page) -> None:
    page.locator("#stop-button").click()
    expect(page.locator("#notice")).to_contain_text("Stopped.")
    expect(page.locator("#ask-button")).to_be_enabled()


def test_two_stream_at_once_and_stopping_one_leaves_the_other_alone(roomy, visit):
    ann, ben = visit(roomy.url), visit(roomy.url)
    enter(ann, "Which boats?")
    enter(ben, "And where?")
    streams(ann)
    streams(ben)
    stop(ann)
    stopped_at, before = count(ann), count(ben)
    expect(ben.locator("#answer .token").nth(before + 3)).to_be_visible()
    assert count(ann) == stopped_at
    expect(ben.locator("#notice")).to_contain_text("Answering…")
    enter(ann, "Once more?")
    streams(ann)
    stop(ben)
    stop(ann)
    assert ann.wrong == ben.wrong == []


def test_who_waits_sees_the_place_and_one_too_many_is_told_in_one_sentence(tmp_path, visit):
    """With one row, where two may wait."""
    with ask_page(tmp_path, rows=1, most=2, **LONG) as narrow:
        ann, ben, cid, dot = (visit(narrow.url) for _ in range(4))
        enter(ann, "Which boats?")
        streams(ann)
        for other, place in ((ben, 1), (cid, 2)):
            enter(other, "Me too?")
            expect(other.locator("#notice")).to_contain_text(f"Place {place} in the queue")
        enter(dot, "And me?")
        expect(dot.locator("#notice [role=alert]")).to_have_text(BUSY)
        expect(dot.locator("#ask-button")).to_be_enabled()
        expect(dot.locator("#prompt textarea")).to_have_value("And me?")

        # the next starts as soon as a row is free, and there is a place for who was refused
        stop(ann)
        streams(ben)
        expect(cid.locator("#notice")).to_contain_text("Place 1 in the queue")
        expect(ann.locator("#timing")).to_contain_text("stopped by you")
        dot.locator("#ask-button").click()
        expect(dot.locator("#notice")).to_contain_text("Place 2 in the queue")
        stop(cid)  # while it waits
        expect(cid.locator("#answer .token")).to_have_count(0)
        expect(cid.locator("#prompt textarea")).to_have_value("Me too?")
        expect(dot.locator("#notice")).to_contain_text("Place 1 in the queue")
        assert count(ben) > 1

        # a closed tab frees its place, and its row
        enter(ann, "Once more?")
        expect(ann.locator("#notice")).to_contain_text("Place 2 in the queue")
        dot.close()
        expect(ann.locator("#notice")).to_contain_text("Place 1 in the queue")
        ben.close()
        streams(ann)
        stop(ann)
