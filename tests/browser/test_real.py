"""The page on the real base and the sample pool, in a real Chromium: Ask, Batch, and a queue."""

import re

import pytest
from playwright.sync_api import expect

from tests.support.browser import PATIENCE, open_tab
from tests.support.serving import app, second_start


@pytest.fixture(scope="module")
def server(tmp_path_factory, real_base_folder):
    """With two rows, and more new tokens than anybody reads to their end."""
    root = tmp_path_factory.mktemp("real")
    said = {"encoder": "all-MiniLM-L6-v2", "max_batch": 2, "max_new_tokens": 6000}
    with app(root, data_dir=second_start(root / "data"), **said) as one:
        yield one


def test_a_recorded_run_is_there_at_once_and_an_example_is_asked(server, visit):
    page = visit(server.url)
    page.locator("#examples-recorded button", has_text="Question to SQL").click()
    expect(page.locator("#answer .text")).to_contain_text("SELECT")
    page.locator("#examples-fold > button").click()
    page.locator("#examples-live button", has_text="Clickbait?").click()
    expect(page.locator("#status .ready")).to_be_visible(timeout=4 * PATIENCE)
    expect(page.locator("#timing")).to_contain_text("tokens/s", timeout=2 * PATIENCE)
    assert page.locator("#found .taken .name").first.inner_text() == "clickbait"
    assert page.locator("#answer .text").inner_text().startswith(("yes", "no"))
    assert page.locator("#answer .legend li").count() >= 3, "and the base, where it did a token"
    expect(page.locator("#beside .plain")).to_be_visible()
    page.locator("#answer .token").first.click()
    expect(page.locator("#likely table")).to_have_count(2)
    expect(page.locator("#likely table").last.locator("tbody tr")).to_have_count(10)
    expect(page.locator("#likely .chosen").last).to_be_visible()
    page.locator("#what-if > button").click()
    page.locator("#what-adapter input").click()
    page.get_by_role("option", name="clickbait").click()
    expect(page.locator("#what-measured")).to_contain_text("if clickbait had not been found")
    measured = re.search(r"([\d.]+) % in the place", page.locator("#what-measured").inner_text())
    page.locator("#what-go").click()
    shown = page.locator("#what-likely table").last.locator(".chosen .number").inner_text()
    # what is measured comes true, where "34 %" and "34.2 %" are one
    assert measured and float(measured[1]) == pytest.approx(float(shown[:-2]), rel=0.03, abs=0.06)
    assert page.wrong == []
    assert [url for url in page.requested if not url.startswith((server.url, "data:"))] == []


def test_one_prompt_is_answered_seven_ways(server, visit):
    page = visit(server.url)
    open_tab(page, "Batch")
    page.locator("#batch-examples button", has_text="One prompt, seven ways").click()
    expect(page.locator("#batch-verdict")).to_contain_text("7 rows ready, read as csv.")
    expect(page.locator("#status .ready")).to_be_visible(timeout=4 * PATIENCE)
    page.locator("#batch-run").click()
    expect(page.locator("#batch-notice")).to_contain_text(
        "All rows have ended", timeout=4 * PATIENCE
    )
    lines = page.locator("#batch-picture .lines .line")
    counts = [line.locator(".cell").count() for line in lines.all()]
    assert counts == [0, 1, 3, 3, 3, 3, 2]
    both = re.compile(r"snips_json 0\.\d\d, dart 0\.\d\d")  # shares of what they contributed
    expect(lines.nth(6)).to_have_attribute("aria-label", both)
    expect(lines.nth(1)).to_have_attribute("aria-label", re.compile("snips_json 1.00"))
    speed = page.locator("#batch-progress dl > div", has_text="tokens/s, all together")
    assert float(speed.inner_text().split("\n", 1)[1]) > 1
    lines.nth(6).click()
    expect(page.locator("#batch-row")).to_contain_text("Request 7")
    for weight in ("0.80", "0.20"):  # as given, though dart has no gate_proj
        expect(page.locator("#batch-row td", has_text=weight).last).to_be_visible()
    lines.nth(4).click()
    expect(page.locator("#batch-row")).to_contain_text("Request 5")
    expect(page.locator("#batch-row")).to_contain_text(re.compile("AddToPlaylist", re.I))
    assert page.wrong == []
