"""The tab Results in a real Chromium: open, read, choose; broken files; phone."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import ask_page, elsewhere, lost_focus, serious, visits
from tests.support.results_page import FILES, METHODS, write_results
from ui.results import router

KEYS = ("answers", "methods", "stresses", "retrieval", "adapters", "speed")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A page over one small file of each kind."""
    root = tmp_path_factory.mktemp("measured")
    with ask_page(root, tabs="results", folder=write_results(root / "results")) as server:
        yield server


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """(a page, the folder of its files, which a test may spoil)."""
    root = tmp_path_factory.mktemp("changing")
    folder = write_results(root / "results")
    with ask_page(root, tabs="results", folder=folder) as server:
        yield server, folder


@pytest.fixture
def visit(chromium):
    """Open the tab in a fresh context."""
    with visits(chromium, tab="Results", until=["#results-speed summary"]) as open_page:
        yield open_page


@pytest.fixture
def untouched(chromium):
    """Open the page where a visitor finds it."""
    with visits(chromium, until=["#prompt textarea"]) as open_page:
        yield open_page


def wide(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth")


def unfold(page: Page, *keys: str) -> None:
    """Open the sections; the closer look is Gradio's own fold."""
    for key in keys:
        fold = page.locator(f"#results-{key}")
        if key == "choice":
            fold.locator("button.label-wrap").click()
        else:
            fold.evaluate("node => node.open = true")


def test_the_tab_shows_every_table_and_the_picture_of_each_setting(measured, visit):
    page = visit(measured.url)
    unfold(page, "choice", *KEYS)
    expect(page.locator("#results-tasks caption")).to_be_visible()
    expect(page.locator("#results-plot .errorbar")).to_have_count(len(METHODS))
    captions = page.locator("#results-tab caption").all_inner_texts()
    for words in ("Mean score of each", "Differences", "Score by task", "By the paper"):
        assert any(caption.startswith(words) for caption in captions), words
    for table in page.locator("#results-tab table").all():
        assert table.locator("tbody tr").count() >= 1
    rows = page.get_by_role("table", name="Mean score of each method").get_by_role("rowheader")
    assert rows.all_inner_texts() == list(METHODS)
    titles = page.locator("#results-tab .rm-fold h2").all_inner_texts()
    assert len(titles) == len(set(titles)) == 7
    assert page.evaluate("window.hacked") is None
    assert serious(page, "#results-tab") == []
    assert elsewhere(page, measured.url) == []

    # another setting changes picture, differences and tasks
    page.locator("#results-setting").get_by_text("its adapter is hidden").click()
    expect(page.locator("#results-tasks caption")).to_have_text(
        "Score by task, its adapter is hidden"
    )
    expect(page.locator("#results-ahead tbody tr:not(.group)")).to_have_count(1)
    expect(page.locator("#results-plot .errorbar")).to_have_count(len(METHODS) - 1)
    page.locator("#results-setting").get_by_text("crowded").click()
    expect(page.locator("#results-tasks caption")).to_have_text("Score by task, crowded")
    expect(page.locator("#results-ahead table")).to_have_count(0)
    assert page.wrong == []


def test_nothing_is_sent_before_the_tab_is_opened_and_its_first_screens_say_it_all(
    measured, untouched
):
    page = untouched(measured.url)
    page.wait_for_timeout(1500)
    tables = page.locator("#results-answers table")
    assert tables.count() == 0
    page.get_by_role("tab", name="Results").click()
    expect(tables).not_to_have_count(0)
    expect(page.locator(".rm-short h2")).to_have_text(re.compile("11 points alone, 61 with"))
    for one in (".rm-short h2", ".rm-bars li >> nth=3", ".rm-both table >> nth=0"):
        box = page.locator(one).bounding_box()
        assert box["y"] + box["height"] <= 900, one
    assert page.evaluate("document.documentElement.scrollHeight") <= 1400, "a screen and a half"
    assert lost_focus(page) == []
    for table in page.locator("#results-tab .rm-fold table, #results-choice table").all():
        expect(table).not_to_be_visible()
    words = page.locator("#results-tab").text_content()  # of closed folds too
    assert "What was measured, and with what" in words
    assert "IID" not in words and "OOD" not in words and "python -m" not in words


def test_every_task_is_in_sight_at_once(changing, visit):
    server, folder = changing
    raw = json.loads((folder / "test2.json").read_text())
    names = [f"task_{n}" for n in range(24)]
    raw["tasks"] = {name: {"domain": "many", "metric": "em", "rows": 9} for name in names}
    for cells in raw["cells"].values():
        for cell in cells.values():
            cell["by_task"] = {name: 50.0 + n for n, name in enumerate(names)}
    (folder / "test2.json").write_text(json.dumps(raw))
    speed = json.loads((folder / "speed.json").read_text())
    (cell, *_), peers = speed["parts"]["peers"]["cells"].values(), speed["parts"]["peers"]
    facts = [(name, rows) for name in ("ramole_k3_int4", "llama_cpp") for rows in (1, 8, 32)]
    cells = {f"{s} {n}": cell | {"facts": {"system": s, "batch": n}} for s, n in facts}
    speed["parts"]["llama_cpp"] = peers | {"cells": cells}
    (folder / "speed.json").write_text(json.dumps(speed))
    page = visit(server.url)
    expect(page.locator(".rm-short tbody tr")).to_have_count(24)
    expect(page.locator(".rm-short h3", has_text="How fast")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollHeight") <= 1400, "a screen and a half"
    unfold(page, "choice")
    table = page.locator("#results-tasks table")
    expect(table).to_be_visible()
    assert table.locator("tbody tr:not(.group)").count() == 24
    box = page.locator("#results-tasks .rm-scroll")
    assert box.evaluate("node => node.scrollHeight <= node.clientHeight + 1"), "none is cut off"
    write_results(folder)


def test_broken_and_missing_files_are_sentences_and_a_change_is_seen(changing, visit):
    server, folder = changing
    for file in folder.iterdir():
        file.write_text("{ broken")
    (folder / "budget.json").unlink()
    page = visit(server.url)
    boxes = page.locator("#results-tab .rm-unmeasured")
    expect(boxes).to_have_count(len(FILES) - len(router.MADE))
    expect(boxes.first).to_contain_text("results/test2.json is broken, older")
    expect(boxes.last).to_contain_text("Not measured yet. This command writes results/budget.json")
    assert page.locator("#results-tab table").count() == 0
    expect(page.locator("#results-plot")).not_to_be_visible()
    expect(boxes.last.locator("code")).to_have_text("python -m lab budget")
    write_results(folder)
    page.get_by_role("tab", name="Ask").click()
    page.get_by_role("tab", name="Results").click()
    expect(boxes).to_have_count(0)
    unfold(page, "choice")
    expect(page.locator("#results-plot .errorbar")).to_have_count(len(METHODS))
    assert page.wrong == []


def test_a_phone_scrolls_the_tables_and_never_the_page(measured, visit):
    page = visit(measured.url, width=390, theme="dark")
    unfold(page, "choice")
    expect(page.locator("#results-plot .errorbar")).to_have_count(len(METHODS))
    assert wide(page) <= 390
    for details in page.locator("#results-tab details").all():
        details.evaluate("node => node.open = true")
    assert wide(page) <= 390
    assert serious(page, "#results-tab") == []
    cut = "nodes => nodes.filter(n => n.scrollWidth > n.clientWidth + 1).map(n => n.innerText)"
    names = page.locator("#results-tab .rm-table tbody th:visible")
    assert names.count() > 20 and names.evaluate_all(cut) == [], "names run into the numbers"
    box = page.locator("#results-answers .rm-scroll").first
    assert box.evaluate("node => node.scrollWidth > node.clientWidth"), "else this shows nothing"
    name = page.get_by_role("rowheader", name="uniform_router").first
    before = name.bounding_box()
    box.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("node => node.scrollLeft > 20", arg=box.element_handle())
    assert name.bounding_box()["x"] == pytest.approx(before["x"], abs=2), "the name stays in sight"
