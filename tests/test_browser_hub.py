"""Find on the Hub in a real Chromium: by keyboard, on a phone, and told while it goes on."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser import PATIENCE, visits
from tests.hub_server import BASE, EVIL, HubServer, Repository, serving
from tests.pool_fakes import write_adapter, write_sample
from tests.serving import fake


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
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    write_sample(root / "adapters", "squad", rank=5, seed=1)
    return root


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_adapters_are_found_by_keyboard_and_axe_finds_nothing(
    chromium, hub, root, monkeypatch, width, theme
):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with (
        fake(root, hub_adapters=True, hub_base=BASE) as server,
        visits(chromium, until=[".rm-card"]) as visit,
    ):
        page = visit(server.url, width=width, theme=theme)
        table = page.locator("#pool-hub-table")
        expect(page.locator("#pool-hub-find")).not_to_be_visible()
        page.locator("#pool-hub > button.label-wrap").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#pool-hub-find")).to_be_visible(timeout=PATIENCE)
        page.locator("#pool-hub-find").focus()
        page.keyboard.press("Enter")
        notice = page.locator("#pool-hub-notice")
        expect(notice).to_contain_text(f"4 adapters of {BASE} are listed, 1 of", timeout=PATIENCE)
        expect(notice.locator("[role=status]")).to_have_count(1)
        expect(table.locator("tbody tr")).to_have_count(4, timeout=PATIENCE)
        expect(table).to_contain_text("bob/gated is given to those alone")
        page.get_by_label("Search the list").fill("knots")
        expect(table.locator("tbody tr")).to_have_count(1, timeout=PATIENCE)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        serious = [
            (rule["id"], [node["html"][:160] for node in rule["nodes"]])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert not serious, serious
        assert page.title() == "RAMoLE" and not page.wrong
        page.reload()
        expect(page.locator(".rm-card")).to_have_count(1, timeout=PATIENCE)
        page.locator("#pool-hub > button.label-wrap").click()
        expect(table.locator("tbody tr")).to_have_count(4, timeout=PATIENCE)


def test_a_page_that_may_not_says_how_it_could(chromium, root):
    with fake(root) as server, visits(chromium, until=[".rm-card"]) as visit:
        page = visit(server.url)
        page.locator("#pool-hub > button.label-wrap").click()
        expect(page.locator("#pool-hub")).to_contain_text("RAMOLE_HUB_ADAPTERS=true")
        expect(page.locator("#pool-hub-find")).not_to_be_visible()
        assert not page.wrong
