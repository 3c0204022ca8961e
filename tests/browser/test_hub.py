"""Find on the Hub in a real Chromium: by keyboard, on a phone, and told while it goes on."""

from functools import partial

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import serious, visits
from tests.support.hub_server import BASE, EVIL, HubServer, Repository, serving
from tests.support.pool_fakes import write_adapter, write_sample
from tests.support.serving import fake


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    with serving(HubServer()) as running:
        for n, name in enumerate(("sums", "poems", "knots")):
            evil = EVIL.replace("alert(1)", "document.title='pwned'")
            folder = write_adapter(root / name, seed=n, readme=f"All about {name}. {evil}")
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            running.repositories[f"ada/{name}"] = Repository(files, downloads=n)
        running.repositories["bob/gated"] = Repository(files, gated="manual")
        yield running


@pytest.fixture(scope="module")
def visit(hub, chromium, tmp_path_factory):
    """Open the tab of a page that may use the Hub."""
    root = tmp_path_factory.mktemp("served")
    write_sample(root / "adapters", "squad", rank=5, seed=1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", hub.url)
        with (
            fake(root, hub_adapters=True, hub_base=BASE) as server,
            visits(chromium, until=[".rm-card"]) as open_page,
        ):
            yield partial(open_page, server.url)


def check(page: Page, width: int) -> None:
    """Nothing is wider than the page, nothing serious in the eyes of axe, and no markup ran."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    assert page.title() == "RAMoLE" and not page.wrong


def test_adapters_are_found_by_keyboard_on_a_phone_and_stay_found(visit):
    page = visit(width=390, theme="dark")
    table, find = page.locator("#pool-hub-table"), page.locator("#pool-hub-find")
    expect(find).not_to_be_visible()
    page.locator("#pool-hub > button.label-wrap").focus()
    page.keyboard.press("Enter")
    expect(find).to_be_visible()
    find.focus()
    page.keyboard.press("Enter")
    notice = page.locator("#pool-hub-notice")
    expect(notice).to_contain_text(f"4 adapters of {BASE} are listed, 1 of")
    expect(notice.locator("[role=status]")).to_have_count(1)
    expect(table.locator("tbody tr")).to_have_count(4)
    expect(table).to_contain_text("bob/gated is given to those alone")
    page.get_by_label("Search the list").fill("knots")
    expect(table.locator("tbody tr")).to_have_count(1)
    check(page, 390)

    other = visit(width=1280, theme="light")
    other.locator("#pool-hub > button.label-wrap").click()
    expect(other.locator("#pool-hub-table tbody tr")).to_have_count(4)
    other.locator("#pool-hub-find").click()
    refused = other.locator("#pool-hub-notice [role=alert]")
    expect(refused).to_contain_text("ask again in 10 minutes")
    check(other, 1280)
