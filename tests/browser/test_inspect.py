"""The tab Inspect in Chromium, over a fake system and one run that it recorded."""

import csv
import zipfile

import pytest
from playwright.sync_api import expect

from tests.support.browser import ask_page, copied, lost_focus, serious, taken
from tests.support.fake_ramole import WORDS

PICKED = """(name) => {
  const shown = document.querySelector(`#inspect-plot-${name} .js-plotly-plot`);
  return (shown.layout.shapes || []).filter((one) => one.name === 'picked').map((one) => one.x0);
}"""
LABELS = """() => document.querySelector('#inspect-plot-layers .js-plotly-plot').data[0].x"""
PLAYED = """() => {
  const own = window.setInterval;
  window.setInterval = (work, wait, ...said) => {
    if (wait !== 350) return own(work, wait, ...said);
    window.tick = work;
    return own(() => {}, wait);
  };
}"""
"""A token is played when `tick` is called, and not three times a second."""
DRAWN = "#inspect-plot-entropy .js-plotly-plot .main-svg"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ask_page(tmp_path_factory.mktemp("inspect"), tabs="inspect") as one:
        yield one


def inspect(page):
    page.get_by_role("tab", name="Inspect").click()
    expect(page.locator(DRAWN).first).to_be_visible()
    return page


def marked(page, name, places):
    """Wait until the picture of this name has a frame around these columns."""
    page.wait_for_function(f"({PICKED})('{name}').join() === '{','.join(map(str, places))}'")


def test_a_recorded_run_is_open_and_a_token_is_told_everywhere(server, visit):
    page = inspect(visit(server.url))
    expect(page.locator("#inspect-head h2")).to_have_text("Recorded run: A made-up run")
    tokens = page.locator("#inspect-answer .token")
    expect(tokens).to_have_count(len(WORDS))
    marked(page, "layers", [])
    tokens.nth(2).click()
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 3 of 8: <b>lie</b>␣")
    for name in ("layers", "layer", "module", "entropy"):
        marked(page, name, [1.5])
    expect(page.locator("#inspect-player .where")).to_have_text("Token 3 of 8: <b>lie</b>␣")
    tokens.nth(2).press("ArrowRight")
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 4 of 8")
    marked(page, "layers", [2.5])
    assert page.evaluate(LABELS)[2] == "3 &lt;b&gt;lie&lt;/b&gt;␣"
    drawn = page.locator("#inspect-plot-layers .xtick").all_text_contents()
    assert "3 <b>lie</b>␣" in drawn, "letter by letter, not bold"
    assert page.locator("#inspect-plot-layers .js-plotly-plot").get_attribute("role") == "img"
    assert serious(page, "#inspect-tab") == []
    assert lost_focus(page) == []
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 4 of 8")  # Tab changes nothing

    # a click on a picture picks its token
    plot = page.locator("#inspect-plot-layers .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5.4 / 8, box["y"] + 40)
    page.mouse.click(box["x"] + box["width"] * 5.5 / 8, box["y"] + 42)
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 6 of 8")
    marked(page, "layers", [4.5])
    pressed = page.locator('#inspect-answer .token[aria-pressed="true"]')
    expect(pressed).to_have_attribute("data-index", "5")

    # a link opens the run and the token here
    page.locator("#inspect-answer .token").nth(2).click()
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 3")
    link = copied(page, "#inspect-copy button")
    assert "#inspect?run=" in link and link.endswith("&t=2")
    friend = page.context.new_page()
    friend.goto(link)
    expect(friend.locator("#inspect-token h2")).to_contain_text("Token 3")
    expect(friend.locator("#inspect-head h2")).to_have_text("Recorded run: A made-up run")
    friend.close()
    assert not page.said and not page.wrong


def test_choices_change_the_pictures(server, visit):
    page = inspect(visit(server.url))
    assert len(page.evaluate(LABELS)) == 8
    page.locator("#inspect-per").get_by_text("word", exact=True).click()
    page.locator("#inspect-answer .token").nth(6).click()  # before the new pictures are there
    page.wait_for_function(f"({LABELS})().length === 5")
    assert page.evaluate(LABELS)[3] == "4 ${here}"
    marked(page, "layers", [3.5])
    marked(page, "entropy", [3.5])
    page.locator("#inspect-expert input").click()
    page.get_by_role("option", name="B bee").click()
    title = "document.querySelector('#inspect-plot-module .js-plotly-plot').layout.meta.title"
    page.wait_for_function(f"{title} === 'Contribution of bee, q_proj'")
    page.locator("#inspect-fold-loads button").first.click()
    expect(page.locator("#inspect-fold-loads")).to_contain_text("A ant")
    assert page.wrong == [] and page.said == []


def test_playback_stops_where_it_is_told_and_pictures_tables_and_traces_are_files(
    server, visit, tmp_path
):
    page = inspect(visit(server.url))
    where, play = page.locator("#inspect-player .where"), page.locator("#inspect-player .play")
    expect(where).to_contain_text("Token 8 of 8")
    shares = page.locator("#inspect-player .share")
    expect(shares).to_have_text(["42 %", "29 %", "29 %"])
    page.wait_for_timeout(900)
    expect(where).to_contain_text("Token 8 of 8")
    page.evaluate(PLAYED)
    play.press("Enter")
    expect(play).to_have_text("❚❚ Pause")
    for token in (1, 2, 3):
        page.evaluate("tick()")
        expect(where).to_contain_text(f"Token {token} of 8")
    play.press(" ")
    expect(play).to_have_text("▶ Play")
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 3 of 8")
    slider = page.locator("#inspect-player input")
    slider.press("Home")
    expect(where).to_contain_text("Token 1 of 8")
    expect(shares).to_have_text(["67 %", "17 %", "17 %"])
    page.locator("#inspect-player .on").press("Enter")
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 2 of 8")
    marked(page, "entropy", [0.5])
    assert page.locator("#inspect-player .growth .ahead").count() == 6
    marked(page, "layers", [0.5])

    def kept(button):
        file = taken(page, button)
        file.save_as(path := tmp_path / file.suggested_filename)
        return path

    png, svg = kept("#inspect-png-layers"), kept("#inspect-svg-loads")
    assert png.name == "ramole-layers.png" and png.read_bytes()[:4] == b"\x89PNG"
    drawn = svg.read_text("utf-8")
    assert drawn.startswith("<svg") and "Load of each adapter" in drawn and "A ant" in drawn
    rows = list(csv.reader(kept("#inspect-csv-entropy").read_text("utf-8-sig").splitlines()))
    assert rows[0] == ["#", "token", "entropy (nats)"] and len(rows) == 1 + len(WORDS)
    assert zipfile.is_zipfile(kept("#inspect-npz"))
    whole = kept("#inspect-html")
    alone = page.context.new_page()
    asked, wrong = [], []
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("pageerror", lambda error: wrong.append(str(error)))
    alone.goto(whole.as_uri())
    expect(alone.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert alone.locator(".js-plotly-plot").count() == 6 and wrong == []
    assert [url for url in asked if url.startswith("http")] == []
    assert page.wrong == [] and page.said == []


def test_an_answer_in_ask_is_drawn_when_the_tab_is_opened_and_pinned(server, visit):
    page = inspect(visit(server.url))
    page.locator("#inspect-pin").click()
    expect(page.locator("#inspect-sides")).to_contain_text("This run is pinned")
    page.get_by_role("tab", name="Ask").click()
    page.locator("#prompt textarea").fill("Which ships?")
    page.locator("#ask-button").click()
    expect(page.locator("#notice")).to_contain_text("follow up")
    assert "made-up" in page.locator("#inspect-head").text_content(), "nothing is drawn unseen"
    page.locator("#inspect-run").click()
    expect(page.locator("#inspect-head h2")).to_have_text("Your answer in Ask")
    expect(page.locator("#inspect-head")).to_contain_text("Which ships?")
    expect(page.locator("#inspect-sides")).to_contain_text("Pinned run: ramole_plus, k = 3")
    expect(page.locator("#inspect-sides")).to_contain_text("In both runs: ant, bee, cat")
    expect(page.locator("#inspect-plot-against .js-plotly-plot .bars path")).to_have_count(12)
    assert page.wrong == [] and page.said == []


def test_a_phone_has_no_sideways_scroll(server, visit):
    page = inspect(visit(server.url, width=390, theme="dark"))
    page.locator("#inspect-answer .token").nth(2).click()
    expect(page.locator("#inspect-token h2")).to_contain_text("Token 3 of 8")
    page.locator("#inspect-pin").click()
    expect(page.locator("#inspect-plot-against .js-plotly-plot .main-svg").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page, "#inspect-tab") == []


def test_a_link_to_an_answer_asks_it_and_shows_it_here(server, visit):
    page = visit(server.url)
    page.locator("#prompt textarea").fill("Which boats?")
    page.evaluate("document.querySelector('#ask-button').click()")
    inspect(page)
    expect(page.locator("#inspect-answer .token")).to_have_count(len(WORDS))
    expect(page.locator("#inspect-head")).to_contain_text("Which boats?")
    # it was asked meanwhile, and is shown while the tab is in sight
    link = copied(page, "#inspect-copy button")
    friend = page.context.new_page()
    friend.goto(link + "&t=1")
    expect(friend.locator("#inspect-token h2")).to_contain_text("Token 2")
    expect(friend.locator("#inspect-answer .token")).to_have_count(len(WORDS))
    friend.close()
    assert not page.said and not page.wrong


def test_a_link_to_a_token_that_is_not_there_holds_nobody_in_the_tab(server, visit):
    page = visit(server.url)
    page.goto("about:blank")
    page.goto(f"{server.url}/#inspect?run=01-a-made-up-run&t=99")
    expect(page.locator("#inspect-answer .token")).to_have_count(len(WORDS))
    page.get_by_role("tab", name="Ask").click()
    expect(page.locator("#prompt textarea")).to_be_visible()
    page.wait_for_timeout(1000)  # longer than between two looks of the page for that token
    expect(page.locator("#prompt textarea")).to_be_visible()
    assert not page.said and not page.wrong
