"""The tab Batch in a real Chromium: drop, run, watch, pick, take away, stop; keys alone; phone."""

import csv
import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.ask_page import SLOWLY
from tests.support.browser import (
    LONG,
    PATIENCE,
    ask_page,
    elsewhere,
    lost_focus,
    refused,
    serious,
    stopped_within,
    taken,
    visits,
)
from tests.support.fake_ramole import WORDS
from ui.parts.events import FAILED

ROWS = [
    {"prompt": "Which boats?", "id": "b1", "harbour": "Bergen"},
    {"prompt": "Whose boats?", "method": "selection"},
    {"prompt": "No boats?", "k": "some"},
    {"prompt": "<img src=x onerror=window.hacked=1>", "adapters": ["dog", "bee"]},
    {"prompt": "Boats?", "method": "base"},
]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A page whose model answers eight tokens at once."""
    with ask_page(tmp_path_factory.mktemp("quick"), tabs="batch") as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A page whose answers are `LONG`."""
    root = tmp_path_factory.mktemp("slow")
    with ask_page(root, tabs="batch", **LONG) as server:
        yield server


@pytest.fixture
def visit(chromium):
    """Open the tab in a fresh context; every request and page error is kept."""
    with visits(chromium, tab="Batch", until=["#batch-text .cm-content"]) as open_page:
        yield open_page


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "boats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def drop(page: Page, file: Path) -> None:
    """Give the file to the drop zone, and wait for the verdict."""
    page.locator("#batch-file input[type=file]").set_input_files(file)
    expect(page.locator("#batch-verdict")).to_contain_text("ready, read as")


def run(page: Page) -> None:
    page.locator("#batch-run").click()
    expect(page.locator("#batch-notice")).to_contain_text("All rows have ended")
    expect(page.locator("#batch-run")).to_be_enabled()


def tile(page: Page, name: str) -> str:
    """What stands below the name of a number."""
    tiles = page.locator("#batch-progress dl > div").all_inner_texts()
    return dict(text.split("\n", 1) for text in tiles)[name].strip()


def focused(page: Page, selector: str) -> bool:
    return page.evaluate("s => document.activeElement.matches(s)", selector)


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page, selector):
            return
    raise AssertionError(f"Tab does not come to {selector}")


def test_a_refused_batch_can_be_run_again(quick, visit, file):
    page = visit(quick.url)
    drop(page, file)
    page.route("**/queue/join*", lambda route: refused(route, True))
    page.locator("#batch-run").click()
    expect(page.locator("#batch-notice [role=alert]")).to_have_text(FAILED)
    expect(page.locator("#batch-run")).to_be_enabled()
    expect(page.locator("#batch-stop")).to_be_hidden()
    page.unroute("**/queue/join*")
    run(page)
    assert page.wrong == []


def test_a_file_is_dropped_run_watched_picked_and_taken_away(quick, visit, file):
    page = visit(quick.url)
    drop(page, file)
    expect(page.locator("#batch-text")).to_contain_text("Which boats?")
    verdict = page.locator("#batch-verdict")
    expect(verdict).to_contain_text("4 rows ready, read as jsonl.")
    expect(verdict).to_contain_text("Carried along to the results, not used: harbour.")
    expect(verdict).to_contain_text("Line 3: k='some'; give a whole number.")
    run(page)
    assert tile(page, "answered") == "4 of 4" and tile(page, "refused") == "1"
    assert float(tile(page, "tokens/s, all together")) > 0 and tile(page, "tokens") == "32"
    lines = page.locator("#batch-picture .lines .line")
    expect(lines).to_have_count(5)
    assert [line.locator(".cell").count() for line in lines.all()] == [3, 1, 0, 2, 0]
    heads = page.locator("#batch-picture .head")
    columns = {head.locator("b").inner_text(): head.bounding_box() for head in heads.all()}
    assert list(columns) == ["ant", "bee", "cat", "dog"]
    for line, names in ((0, ["ant", "bee", "cat"]), (1, ["ant"]), (3, ["dog", "bee"])):
        for cell, name in zip(lines.nth(line).locator(".cell").all(), names, strict=True):
            box, column = cell.bounding_box(), columns[name]  # a square stands below its name
            assert (
                column["x"] <= box["x"] < box["x"] + box["width"] <= column["x"] + column["width"]
            )
    assert lines.nth(1).get_attribute("aria-label") == (
        "Request 2, answered: ant 1.00. Whose boats?"
    )
    expect(page.locator("#batch-picture figcaption")).to_contain_text("4 requests, 4 different")
    lines.nth(3).click()
    expect(page.locator("#batch-row")).to_contain_text("<img src=x onerror=window.hacked=1>")
    expect(page.locator("#batch-row tbody tr")).to_have_count(2)
    expect(page.locator("#batch-row")).to_contain_text("The boats <b>lie</b>")
    expect(page.locator("#batch-table")).to_contain_text("refused: k='some'")
    assert serious(page, "#batch-tab") == []
    file = taken(page, "#batch-jsonl")
    told = [json.loads(line) for line in Path(file.path()).read_text().splitlines()]
    assert [record["prompt"] for record in told if "prompt" in record] == [
        row["prompt"] for i, row in enumerate(ROWS) if i != 2
    ]
    assert told[0]["text"] == "".join(WORDS) and told[0]["extra"] == {"harbour": "Bergen"}
    assert file.suggested_filename == "ramole-batch.jsonl"
    with Path(taken(page, "#batch-csv").path()).open(encoding="utf-8-sig", newline="") as table:
        assert [row["id"] for row in csv.DictReader(table)] == ["b1", "", "", "", ""]
    # lines can be grouped by adapter and made compact
    numbers = page.locator("#batch-picture .lines .line b")
    assert numbers.all_inner_texts() == ["1", "2", "3", "4", "5"]
    page.get_by_role("button", name="group by adapter").click()
    assert numbers.all_inner_texts() == ["2", "1", "4", "3", "5"]
    line = page.locator("#batch-picture .lines .line").first
    tall = line.bounding_box()["height"]
    page.get_by_role("button", name="compact").click()
    assert line.bounding_box()["height"] < tall / 2
    assert page.wrong == [] and page.evaluate("window.hacked") is None
    assert elsewhere(page, quick.url) == []


def test_two_run_at_once_stop_keeps_what_came_and_leaves_the_other_alone(slow, visit, file):
    ann, ben = visit(slow.url), visit(slow.url)
    for page in (ann, ben):
        drop(page, file)
        page.locator("#batch-run").click()
    for page in (ann, ben):
        expect(page.locator("#batch-picture .line.runs .cell")).to_have_count(6)
        expect(page.locator("#batch-notice")).to_contain_text("Answering…")
        assert tile(page, "running") == "4"
    ann.locator("#batch-picture .line").first.click()
    expect(ann.locator("#batch-row")).to_contain_text("as far as it has come")
    expect(ann.locator("#batch-bar button:visible")).to_have_text(["Stop"])
    stopped_within(ann, "#batch-stop", "#batch-notice")
    expect(ann.locator("#batch-bar button:visible")).to_have_text(["Run the rows"])
    expect(ann.locator("#batch-picture .line.stopped")).to_have_count(4)
    expect(ann.locator("#batch-table")).to_contain_text("stopped by you")
    file = taken(ann, "#batch-jsonl")
    told = [json.loads(line) for line in Path(file.path()).read_text().splitlines()]
    assert told[0]["finish_reason"] == "cancelled" and told[0]["text"].startswith("The boats")
    before = int(tile(ben, "tokens"))
    expect(ben.locator("#batch-notice")).to_contain_text("Answering…")
    ben.wait_for_function(
        "n => [...document.querySelectorAll('#batch-progress div')].some(d => "
        "d.querySelector('dt')?.textContent === 'tokens' && "
        "Number(d.querySelector('dd').textContent) > n)",
        arg=before,
    )
    stopped_within(ben, "#batch-stop", "#batch-notice")
    ben.locator("#batch-text .cm-content").click()
    ben.keyboard.press("Control+a")
    ben.keyboard.insert_text(json.dumps({"prompt": SLOWLY}))
    expect(ben.locator("#batch-verdict")).to_contain_text("1 row ready")
    ben.locator("#batch-run").click()
    expect(ben.locator("#batch-notice")).to_contain_text("Finding adapters")
    stopped_within(ben, "#batch-stop", "#batch-notice")
    assert ann.wrong == ben.wrong == []


def test_with_the_keyboard_alone(quick, visit):
    page = visit(quick.url)
    choosers: list[object] = []  # from the start, as Chromium must know that we want them
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    tab_to(page, "#batch-examples button")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused(page, "#batch-examples button:last-child")  # plain lines
    page.keyboard.press("Enter")
    expect(page.locator("#batch-verdict")).to_contain_text("6 rows ready")
    page.keyboard.press("Tab")
    assert focused(page, "#batch-file .upload-container")
    page.keyboard.press("Enter")
    for _ in range(PATIENCE // 100):
        if choosers:
            break
        page.wait_for_timeout(100)
    assert len(choosers) == 1
    tab_to(page, "#batch-text .cm-content")
    page.keyboard.press("Control+a")
    page.keyboard.type("One?\nTwo?")
    expect(page.locator("#batch-verdict")).to_contain_text("2 rows ready")
    page.keyboard.press("Tab")
    assert not focused(page, "#batch-text .cm-content"), "Tab leaves the text"
    tab_to(page, "#batch-run")
    page.keyboard.press("Enter")
    expect(page.locator("#batch-notice")).to_contain_text("All rows have ended")
    expect(page.locator("#batch-run")).to_be_enabled()
    tab_to(page, "#batch-picture .line")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#batch-row")).to_contain_text("Request 2")
    page.keyboard.press("Home")
    expect(page.locator("#batch-row")).to_contain_text("Request 1")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    tab_to(page, "#batch-jsonl")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert len(Path(waiting.value.path()).read_text().splitlines()) == 2
    assert page.wrong == []
    assert lost_focus(page) == []


def test_a_phone_shows_everything_within_its_width(quick, visit, file):
    page = visit(quick.url, width=390, theme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drop(page, file)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    run(page)
    expect(page.locator("#batch-notice")).to_be_in_viewport()  # it stands below the rows
    page.locator("#batch-picture .line").first.click()
    expect(page.locator("#batch-row h3")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#batch-text", "#batch-picture", "#batch-progress", "#batch-row", "#batch-table"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 391, part
    assert serious(page, "#batch-tab") == []


def test_mistakes_are_one_sentence_and_then_two_thousand_rows_run(quick, visit, tmp_path):
    page = visit(quick.url)
    page.locator("#batch-run").click()
    expect(page.locator("#batch-notice [role=alert]")).to_contain_text("There is no row; give")
    page.locator("#batch-text .cm-content").click()
    page.keyboard.type("prompt,k\nWhich boats?,x")
    expect(page.locator("#batch-verdict")).to_contain_text("Line 2: k='x'; give a whole number.")
    picture = tmp_path / "boats.png"
    picture.write_bytes(b"\x89PNG")
    page.locator("#batch-file input[type=file]").set_input_files(picture)
    expect(page.locator("#batch-verdict")).to_contain_text("boats.png does not end in .jsonl")
    expect(page.locator("#batch-text")).to_contain_text("Which boats?,x")
    page.locator("#batch-examples button").first.click()  # what was typed stays
    expect(page.locator("#batch-verdict")).to_contain_text("Your rows stay")
    expect(page.locator("#batch-text")).to_contain_text("Which boats?,x")
    page.locator("#batch-run").click()
    expect(page.locator("#batch-notice [role=alert]")).to_contain_text("No row can run")
    expect(page.locator("#batch-run")).to_be_enabled()
    assert "Traceback" not in page.locator("body").inner_text()

    # two thousand rows are drawn, and taken away
    many = tmp_path / "many.txt"
    many.write_text("".join(f"Boat {i}?\n" for i in range(2000)))
    drop(page, many)
    run(page)
    assert tile(page, "answered") == "2,000 of 2,000"
    expect(page.locator("#batch-picture .lines .line")).to_have_count(2000)
    expect(page.get_by_role("button", name="compact")).to_have_attribute("aria-pressed", "true")
    assert len(Path(taken(page, "#batch-csv").path()).read_text("utf-8-sig").splitlines()) >= 2001
    assert page.wrong == []
