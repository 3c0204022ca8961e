"""The tab Pool in a real Chromium: look, search, drop, verdict, take away, remove."""

import json
import re
import zipfile
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, expect

from tests.support.browser import PATIENCE, elsewhere, lost_focus, serious, visits
from tests.support.pool_fakes import write_adapter, write_sample, zipped
from tests.support.serving import fake
from ui.pool.layout import TYPED

EVIL = "<img src=x onerror=document.title='pwned'> ${document.title='pwned'} {{value}}"


CROWD = [f"{kind}_{task}" for kind in ("long_sentences", "two_words", "a") for task in "abcdefg"]
DRAWN = """() => {
  const plot = document.querySelector('#pool-map-plot .js-plotly-plot');
  return Math.abs(plot.querySelector('.main-svg').clientWidth - plot.clientWidth) < 2;
}"""
"""The map is as wide as its place."""
OVERLAP = """() => {
  const boxes = [...document.querySelectorAll('#pool-map-plot .text text')]
    .filter((node) => node.textContent && node.getClientRects().length)
    .map((node) => [node.textContent, node.getBoundingClientRect()]);
  const over = (p, q) => p.left < q.right - 1 && q.left < p.right - 1 &&
    p.top < q.bottom - 1 && q.top < p.bottom - 1;
  const pairs = boxes.flatMap(([a, p], n) => boxes.slice(n + 1)
    .filter(([, q]) => over(p, q)).map(([b]) => [a, b]));
  return [boxes.length, pairs];
}"""
"""How many labels are seen, and which of them lie over one another."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    made = {"readme": f"---\nlicense: mit\n---\n# One\n\nAnswers {EVIL}.", "examples": ["how many"]}
    command = "python -m ramole_core train adapter squad --rank 5"
    write_sample(root / "adapters", "squad", rank=5, seed=1, command=command, **made)
    write_sample(root / "adapters", "dart", rank=2, seed=2, modules=["down_proj"])
    with fake(root) as running:
        yield running


@pytest.fixture
def visit(server, chromium):
    """Open the tab in a fresh context; every request and console error is kept."""
    with visits(chromium, until=[".rm-card"]) as open_page:
        yield partial(open_page, server.url)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A good zip, a pickle, and the two files of another adapter in a folder."""
    root = tmp_path_factory.mktemp("made")
    good = zipped(
        write_adapter(root / "good", rank=4, seed=9, examples=["how many"]), root / "new.zip"
    )
    bad = root / "adapter_model.bin"
    bad.write_bytes(b"\x80\x04.")
    return {"good": good, "bad": bad, "pair": write_adapter(root / "pair", rank=3, seed=10)} | {
        "other": write_adapter(root / "other", rank=3, seed=11)
    }


def unfold(page: Page, fold: str = "#pool-drop") -> None:
    """Open a line, if it is not."""
    line = page.locator(f"{fold} > button.label-wrap")
    if "open" not in (line.get_attribute("class") or "").split():
        line.click()


def drop(page: Page, *files: Path, zone: str = "#pool-files") -> None:
    unfold(page)
    page.locator(f"{zone} input[type=file]").set_input_files([str(file) for file in files])


def card_names(page: Page) -> list[str]:
    return page.locator(".rm-card h3").all_inner_texts()


def test_cards_search_and_details(visit):
    page = visit()
    assert card_names(page) == ["dart", "squad"]
    page.get_by_label("Search").fill("down_proj")
    expect(page.locator(".rm-count")).to_have_text("1 of 2 adapters")
    assert card_names(page) == ["dart"]
    page.get_by_label("Search").fill("")
    expect(page.locator(".rm-card")).to_have_count(2)
    page.get_by_role("button", name="Details of squad").click()
    expect(page.locator(".rm-detail-title")).to_have_text("squad")
    expect(page.locator(".rm-detail-title")).to_be_focused()
    expect(page.locator("#pool-command textarea")).to_have_value(re.compile("train adapter squad"))
    expect(page.locator(".rm-near")).to_contain_text("dart")
    expect(page.get_by_role("button", name="Remove", exact=True)).to_be_hidden()
    assert page.title() == "RAMoLE" and page.locator(".rm-card img, .rm-detail img").count() == 0
    assert EVIL in page.locator(".rm-detail > p").inner_text()

    # a sample can be taken away as a zip
    with page.expect_download() as told:
        page.get_by_role("button", name="Download as zip").click()
    assert told.value.suggested_filename == "squad.zip"
    with zipfile.ZipFile(told.value.path()) as bundle:
        said = json.loads(bundle.read("squad/train.json"))
        assert "squad/adapter_model.safetensors" in bundle.namelist()
    assert said["command"] == "python -m ramole_core train adapter squad --rank 5"
    assert not page.wrong
    assert elsewhere(page, "http://127.0.0.1") == []


def test_a_list_that_comes_late_leaves_what_was_chosen_meanwhile(visit, made):
    page, held = visit(), []

    def asks_list(sent: Request) -> bool:
        """By the filters and what is chosen."""
        return "/queue/join" in sent.url and len(sent.post_data_json["data"]) == 4

    page.route(
        "**/queue/join*",
        lambda route: held.append(route) if asks_list(route.request) else route.continue_(),
    )
    with page.expect_request(asks_list):
        drop(page, *sorted(made["pair"].iterdir()))
    page.locator("#pool-name input").click()
    page.get_by_role("option", name="squad").click()
    expect(page.locator("#pool-name input")).to_have_value("squad")
    (late,) = held
    late.continue_()
    expect(page.locator(".rm-card")).to_have_count(3)
    expect(page.locator("#pool-name input")).to_have_value("squad")
    expect(page.locator(".rm-detail-title")).to_have_text("squad")
    assert not page.wrong


def test_good_and_bad_uploads_get_their_verdict_at_once_and_stay_with_their_session(
    visit, made, server
):
    page, other = visit(), visit()
    drop(page, made["good"], made["bad"])
    verdicts = page.locator(".rm-verdict")
    expect(verdicts).to_have_count(2)
    expect(verdicts.nth(0)).to_contain_text("new.zip: usable.")
    expect(verdicts.nth(0)).to_contain_text("attention, 2 layers; rank 4; scale 2")
    expect(verdicts.nth(0).locator(".rm-near li").first).to_contain_text("squad")
    expect(verdicts.nth(1)).to_contain_text("adapter_model.bin: refused.")
    expect(page.locator(".rm-card")).to_have_count(3)
    expect(page.locator(".rm-card", has_text="new")).to_contain_text("yours")
    for card in page.locator(".rm-card").all():
        assert card.bounding_box()["height"] < 50, "one line a card, an upload's too"
    expect(page.locator("#pool-room")).to_contain_text("1 of 10 adapters")
    other.reload()
    expect(other.locator(".rm-card")).to_have_count(2)

    held = server.log.parent / "data" / "uploads"
    assert len(list(held.glob("*/new"))) == 1
    page.close()
    for _ in range(PATIENCE // 100):
        if not list(held.glob("*/new")):
            return
        other.wait_for_timeout(100)
    raise AssertionError("The upload outlived its session.")


def test_an_upload_outlives_a_reload_and_is_nobody_elses(chromium, made, tmp_path, monkeypatch):
    monkeypatch.setenv("GRACE_SECONDS", "60")
    for seed, name in enumerate(CROWD):
        write_sample(tmp_path / "adapters", name, rank=2, seed=seed, examples=[name * (seed + 1)])
    with fake(tmp_path) as server, visits(chromium, until=[]) as visit:
        page, other = visit(server.url), visit(server.url)
        unfold(page)
        drop(page, made["good"])
        expect(page.locator("#pool-verdicts")).to_contain_text("usable")
        for _ in range(2):
            page.reload()
            expect(page.locator(".rm-card", has_text="new")).to_contain_text("yours")
        other.reload()
        expect(other.locator("#pool-cards")).to_be_visible()
        expect(other.locator(".rm-card", has_text="new")).to_have_count(0)

        # of so many adapters no label on the map lies over another one, on a phone as well
        unfold(other, "#pool-map")
        other.locator("#pool-map-prompt textarea").fill("how many")
        other.locator("#pool-map-show").click()
        expect(other.locator("#pool-map-plot")).to_contain_text("your prompt")
        counted = []
        for width in (1440, 390):
            other.set_viewport_size({"width": width, "height": 900})
            other.wait_for_function(DRAWN)
            labels, over = other.evaluate(OVERLAP)
            assert over == [], width
            counted.append(labels)
        assert len(CROWD) - 3 <= counted[0] > counted[1] > 8
        assert not page.wrong and not other.wrong


def test_two_files_with_a_name_and_examples_then_other_examples_then_removal(visit, made):
    page = visit()
    unfold(page)
    page.get_by_label("Name (optional)").fill("kept")
    drop(page, made["bad"])
    expect(page.locator(".rm-verdict")).to_contain_text("refused")
    expect(page.get_by_label("Name (optional)")).to_have_value("kept")
    page.get_by_label("Name (optional)").fill("pairs")
    page.locator("#pool-words textarea").last.fill("one\ntwo\nthree")
    drop(page, *sorted(made["pair"].iterdir()))
    expect(page.locator(".rm-verdict")).to_contain_text("in the pool as pairs")
    expect(page.get_by_label("Name (optional)")).to_have_value("")
    mine = page.locator(".rm-card", has_text="pairs")
    expect(mine).to_contain_text("3 examples")

    mine.get_by_role("button").click()
    expect(page.locator(".rm-detail-title")).to_have_text("pairs")
    page.get_by_role("button", name="Give it other examples").click()
    page.get_by_label(TYPED, exact=True).fill("four")
    page.get_by_role("button", name="Replace its examples").click()
    expect(mine).to_contain_text("1 example")
    expect(page.locator(".rm-numbers")).to_contain_text("the mean of 1 example input")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".rm-card")).to_have_count(2)

    expect(page.locator("#pool-undo")).to_contain_text("pairs was removed. Undo")
    expect(page.locator(".rm-undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".rm-card")).to_have_count(3)
    expect(mine).to_contain_text("1 example")
    expect(page.locator(".rm-removed")).to_have_count(0)
    assert not page.wrong


def test_cards_stand_first_and_the_line_opens_for_a_file_that_is_dragged(visit):
    page = visit(width=1440)
    zone = page.locator("#pool-files")
    for card in page.locator(".rm-card").all():
        assert card.bounding_box()["height"] < 50, "one line a card"
    assert page.locator(".rm-card").first.bounding_box()["y"] < 500
    expect(zone).not_to_be_visible()
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(['x'], 'x.zip'));
          document.body.dispatchEvent(
            new DragEvent('dragenter', { dataTransfer: data, bubbles: true }));
        }"""
    )
    expect(zone).to_be_visible()
    page.locator("#pool-drop > button.label-wrap").focus()
    page.keyboard.press("Enter")
    expect(zone).not_to_be_visible()

    # the map is drawn when it is opened, and for a prompt
    plot = page.locator("#pool-map-plot .js-plotly-plot")
    expect(plot).to_have_count(0)
    page.locator("#pool-map > button.label-wrap").focus()
    page.keyboard.press("Enter")
    expect(plot).to_be_visible()
    expect(page.locator("#pool-map-told")).to_contain_text("Look for")
    expect(page.locator("#pool-pairs-plot .js-plotly-plot")).to_be_visible()
    page.locator("#pool-map-prompt textarea").fill(f"how many {EVIL}")
    page.locator("#pool-map-show").click()
    expect(page.locator("#pool-map-told")).to_contain_text("Found for your prompt")
    expect(plot).to_contain_text("your prompt")
    page.locator("#pool-map-told summary").click()
    assert page.locator("#pool-map-told tbody tr").count() == 2
    page.locator("#pool-pairs-by").get_by_text("what they change").click()
    expect(page.locator("#pool-pairs-told")).to_contain_text("the updates B A")
    assert page.title() == "RAMoLE" and not page.wrong


def test_a_folder_that_is_dropped_or_chosen_keeps_its_name(visit, made):
    page = visit()
    unfold(page)
    page.locator("#pool-folder input[type=file]").set_input_files(str(made["pair"]))
    expect(page.locator(".rm-verdict")).to_contain_text("pool as pair:")
    expect(page.locator(".rm-verdict")).to_contain_text("usable")
    expect(page.locator(".rm-card")).to_have_count(3)  # it is one adapter
    expect(page.get_by_label("Name (optional)")).to_have_value("")
    files = {file.name: list(file.read_bytes()) for file in made["other"].iterdir()}
    page.evaluate(
        """(files) => {
          const entries = Object.entries(files).map(([name, bytes]) => ({
            isFile: true, name, file: (done) => done(new File([new Uint8Array(bytes)], name)) }));
          const folder = { isDirectory: true, name: 'dropped-one', createReader: () => ({
            readEntries: (done) => done(entries.splice(0)) }) };
          const event = new Event('drop', { bubbles: true, cancelable: true });
          Object.defineProperty(event, 'dataTransfer', { value: {
            items: [{ webkitGetAsEntry: () => folder }], files: [] } });
          document.querySelector('#pool-files .upload-container').dispatchEvent(event);
        }""",
        files,
    )
    expect(page.locator(".rm-verdict")).to_contain_text("pool as dropped-one")

    # several at once keep theirs
    folders = {
        f"dropped ü {n}": {file.name: list(file.read_bytes()) for file in made[name].iterdir()}
        for n, name in enumerate(("pair", "other"))
    }
    page.evaluate(
        """(folders) => {
          const handed = (list) => ({ readEntries: (done) => done(list.splice(0, 1)) });
          const file = (name, bytes) => ({
            isFile: true, name, file: (done) => done(new File([new Uint8Array(bytes)], name)) });
          const folder = (name, list) => ({
            isDirectory: true, name, createReader: () => handed(list) });
          const inside = Object.entries(folders).map(([name, files]) => folder(
            name, Object.entries(files).map(([name, bytes]) => file(name, bytes))));
          const [first, ...rest] = inside; // one by itself, the others in a folder of theirs
          const parent = folder('all', [file('.DS_Store', [0]), ...rest]);
          const items = [first, parent].map((one) => ({ webkitGetAsEntry: () => one }));
          const event = new Event('drop', { bubbles: true, cancelable: true });
          Object.defineProperty(event, 'dataTransfer', { value: { items, files: [] } });
          document.querySelector('#pool-files .upload-container').dispatchEvent(event);
        }""",
        folders,
    )
    for n, name in enumerate(folders):
        expect(page.locator(".rm-verdict").nth(n)).to_contain_text(f"{name}.zip")
        expect(page.locator(".rm-verdict").nth(n)).to_contain_text("usable")
    assert not page.wrong


def test_by_keyboard_alone(visit, made):
    page = visit()
    page.on("filechooser", lambda chooser: None)  # dialogs are caught from here on, not from Enter
    page.get_by_label("Sort by").focus()
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.dataset.name")
    assert focused == "dart", "the cards come right behind the filters"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".rm-detail-title")).to_have_text("squad")
    expect(page.locator(".rm-detail-title")).to_be_focused()
    page.locator("#pool-drop > button.label-wrap").focus()
    page.keyboard.press("Enter")
    page.locator("#pool-files button").first.focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(made["good"]))
    expect(page.locator(".rm-verdict")).to_contain_text("usable")
    assert lost_focus(page) == []


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_it_fits_and_axe_finds_nothing_serious(visit, made, width, theme):
    page = visit(width=width, theme=theme)
    page.get_by_role("button", name="Details of squad").click()
    expect(page.locator(".rm-detail-title")).to_have_text("squad")
    drop(page, made["good"], made["bad"])
    expect(page.locator(".rm-verdict")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []


def test_an_open_page_keeps_its_uploads_and_a_killed_one_leaves_room(
    chromium, made, tmp_path, monkeypatch
):
    clock = tmp_path / "clock"
    clock.touch()
    monkeypatch.setenv("CLOCK", str(clock))
    monkeypatch.setenv("BEAT_SECONDS", "0.5")
    monkeypatch.setenv("IDLE_SECONDS", "4")

    def later(*there: Page) -> None:
        """Three seconds; then these pages have given signs of life."""
        clock.write_bytes(bytes(clock.stat().st_size + 3))
        for page in there:
            for _ in range(2):  # the first may have begun before
                with page.expect_response(lambda one: one.request.method == "POST"):
                    pass

    (tmp_path / "adapters").mkdir()
    with fake(tmp_path, max_adapters=1) as server, visits(chromium, until=[]) as visit:
        ann, ben = visit(server.url), visit(server.url)
        for page in (ann, ben):
            unfold(page)
            expect(page.locator("#pool-room")).to_contain_text("0 of 10 adapters")
        drop(ann, made["good"])
        expect(ann.locator("#pool-verdicts")).to_contain_text("usable")
        for _ in range(3):  # calls that the upload had made may end after the first
            later(ann, ben)
        drop(ben, made["good"])
        expect(ben.locator("#pool-verdicts")).to_contain_text("no room left for uploads")
        ann.route("**/*", lambda route: route.abort())  # nothing of it comes through any more
        for _ in range(3):  # a sign of life that was sent before may come after the first
            later(ben)
        drop(ben, made["good"])
        expect(ben.locator("#pool-verdicts")).to_contain_text("usable.")
