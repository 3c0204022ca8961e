"""The tab Inspect without a browser: figures from arrays, and handlers over recorded runs."""

import csv
import json
from codecs import BOM_UTF8
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from ramole_core import Request, mean_contribution
from tests.page.test_ask import ask
from tests.support.blocks import built
from tests.support.fake_ramole import WORDS, FakeRamole
from ui.charts.effect_bars import effect_figure, effect_table, evenness, evenness_table
from ui.charts.grid import NOBODY_LEADS, NOBODY_THERE, grid_of, leaders
from ui.charts.heat import WINNER, map_figure, map_table, one_layer, one_module, whole
from ui.charts.loads import Side, changed, loads_figure, loads_of, loads_table
from ui.charts.palette import NOBODY, ink_of
from ui.charts.recorded import read_run, recorded_files
from ui.charts.run import entropy, weight_of
from ui.charts.spans import spans_of
from ui.inspect.cuts import CUTS, Choice, seen
from ui.inspect.files import write_page, write_table
from ui.inspect.layout import InspectLayout
from ui.inspect.player import marks_of, player_of
from ui.inspect.sources import ASKED, PICK, Sources
from ui.inspect.tab import InspectHandlers
from ui.session.quota import quota_of

VISITOR = SimpleNamespace(session_hash="me", headers={})
FIRST = "Capital letters"
MIXED = "Facts to a sentence, by the trained gate"
START = (None, "contribution", "token", WINNER, None, None)
"""What is pinned (nothing), and the controls."""
CLOSED, OPEN = (False,) * 7, (True,) * 7


@pytest.fixture(scope="module")
def recorded():
    return {run.title: run for run in map(read_run, recorded_files())}


@pytest.fixture(scope="module")
def mixed(recorded):
    return recorded[MIXED]


@pytest.fixture
def live():
    """An answer of the fake system, whose words would be markup, were they not escaped."""
    return asked("Which <b>boats</b>?", effects=True)


@pytest.fixture
def handlers():
    sources = Sources(recorded_files())
    return InspectHandlers(FakeRamole(), built(InspectLayout), sources)


def asked(prompt, **options):
    return ask(Request(prompt, **options))[0]


def with_arrays(run, **arrays):
    return replace(run, answer=replace(run.answer, trace=replace(run.answer.trace, **arrays)))


def pick(handlers, held, index, *, run=None):
    event = SimpleNamespace(_data={"index": index, "run": held.name if run is None else run})
    return handlers.on_pick(held, event)


CAT = ["The", " cat", " s", "at.", ""]


@pytest.mark.parametrize(
    ("pieces", "per", "at", "texts"),
    [
        (CAT, "token", (0, 1, 2, 3, 4), ("The", "␣cat", "␣s", "at.")),
        (CAT, "word", (0, 1, 2, 2, 2), ("The", "cat", "sat.")),
        ([" ", "a b", "c", "\n", "d"], "word", (0, 1, 2, 2, 3), ("␣", "a b", "c", "d")),
        (["Hi", ".", " You", "?\n", "No"], "sentence", (0, 0, 1, 1, 2), ("Hi.", "You?", "No")),
        (["3.", "5 m", " “Yes.”", " So"], "sentence", (0, 0, 0, 1), ("3.5 m “Yes.”", "So")),
        ([], "word", (), ()),
    ],
)
def test_tokens_that_belong_together(pieces, per, at, texts):
    spans = spans_of(pieces, per)
    assert spans.at == at and spans.texts[: len(texts)] == texts
    assert len(spans.texts) == len(set(at)) and spans.starts == sorted(set(map(at.index, at)))
    with pytest.raises(ValueError, match="line"):
        spans_of(pieces, "line")


def test_a_grid_is_blank_where_an_adapter_has_nothing(mixed):
    grid = grid_of(mixed)
    assert not mixed.present.all(), "else there is nothing to be blank"
    assert (np.isnan(grid.values) == ~mixed.present).all()
    everywhere = np.where(np.isnan(grid.over_modules), 0, grid.over_modules).mean(1)
    assert np.allclose(everywhere, mean_contribution(mixed.contribution), atol=1e-6)
    weights = grid_of(mixed, what="weight")
    t, i, e = 4, 20, mixed.experts.index("e2e_nlg")
    there = mixed.present[t, i, :, e]
    assert there.all() and not mixed.present[t, 5, :, e].any() and mixed.present[t, 5].any()
    assert weights.over_modules[t, i, e] == pytest.approx(mixed.gates[t, i, there, e].mean())
    assert np.isnan(weights.over_modules[t, 5, e])
    assert weights.values.shape == (33, 30, 7, 3) and grid_of(asked("x", method="base")) is None


def test_words_and_sentences_are_means_over_their_tokens(mixed):
    tokens, words = grid_of(mixed), grid_of(mixed, per="word")
    group = words.spans.at[3]
    inside = [t for t, at in enumerate(words.spans.at) if at == group]
    assert words.spans.texts[:4] == ("The", "Copper", "Kettle", "is") and inside == [2, 3]
    there = mixed.present[2, 20, 1]
    mean = (tokens.values[2, 20, 1] + tokens.values[3, 20, 1]) / 2
    assert there.any() and np.allclose(words.values[group, 20, 1][there], mean[there])
    (first, *_), at = evenness(mixed, words.spans), words.spans.at
    each = entropy(mixed.gates, mixed.present)
    assert first == pytest.approx(each[0]) and len(set(np.round(each, 6))) > 3
    assert evenness(mixed, words.spans)[group] == pytest.approx(each[inside].mean())
    sentences = evenness_table(mixed, per="sentence")[1]
    assert len(sentences) == 3 < max(at)
    assert sentences[2][1] == "It is family friendly."


def test_who_leads_is_told_from_nobody():
    nan = np.nan
    cells = [[0.2, 0.5], [0.3, 0.3], [0.0, 0.0], [nan, nan], [nan, 0.1], [0.2, -0.7]]
    found = leaders(np.array(cells))
    assert found.tolist() == [1, NOBODY_LEADS, NOBODY_LEADS, NOBODY_THERE, 1, 1]
    assert leaders(np.array([[0.4], [nan]])).tolist() == [0, NOBODY_THERE]


def test_a_map_of_one_adapter_and_its_table_hold_the_same_numbers(mixed):
    grid = grid_of(mixed)
    part = one_layer(grid, 20)
    e = mixed.experts.index("e2e_nlg")
    figure = map_figure(grid, part, e)
    z, (headers, rows) = figure.data[0].z, map_table(grid, part, e)
    assert headers[:4] == ["#", "token", "module q_proj", "module k_proj"]
    t, j = 6, list(np.flatnonzero(mixed.present[6, 20, :, e]))[0]
    assert z[j][t] == rows[t][2 + j] == pytest.approx(mixed.contribution[t, 20, j, e], abs=6e-5)
    low = one_layer(grid, 5)
    blank, (_, empty) = map_figure(grid, low, e).data[0].z, map_table(grid, low, e)
    assert not mixed.present[t, 5, :, e].any() and mixed.present[t, 5, :, 0].all()
    assert all(blank[j][t] is None and empty[t][2 + j] == "" for j in range(7))
    assert figure.layout.meta["title"] == "Contribution of e2e_nlg, layer 20"
    red, green, blue = (int(ink_of(e).colour[n : n + 2], 16) for n in (1, 3, 5))
    assert f"rgba({red},{green},{blue},1)" in str(figure.data[0].colorscale)
    tall = map_figure(grid, one_module(grid, "down_proj"), 0)
    assert tuple(tall.data[0].y) == tuple(range(30)) and len(tall.data[0].x) == 33


def test_the_map_of_leaders_has_a_colour_for_each_and_grey_for_none(mixed):
    grid, part = grid_of(mixed), whole(grid_of(mixed))
    figure = map_figure(grid, part, WINNER)
    heat, led = figure.data[0], leaders(part.cells)
    assert {0, 1, 2} <= set(led.flat), "else nothing is told apart"
    assert heat.z[9][5] == led[5, 9] + 1 and heat.text[9][5] == "ABC"[led[5, 9]]
    assert map_table(grid, part, WINNER)[1][5][2 + 9] == "ABC"[led[5, 9]]
    k, steps = 3, {at: colour for at, colour in heat.colorscale}
    assert heat.colorscale[0] == (0, NOBODY.colour) and steps[1.0] == ink_of(2).colour
    assert (heat.zmin, heat.zmax) == (-0.5, k + 0.5)
    shape = mixed.answer.trace.weights.shape
    present = np.ones(shape, np.bool_)
    present[:, 4] = False
    grid = grid_of(with_arrays(mixed, contribution=np.ones(shape, np.float16), present=present))
    drawn = map_figure(grid, whole(grid), WINNER).data[0]
    assert set(drawn.z[4]) == {None} and set(drawn.z[3]) == {0} and drawn.text[3][0] == "none"


def test_text_of_strangers_is_no_markup_in_a_label(live):
    assert WORDS[2] == "<b>lie</b> "
    named = replace(live, answer=replace(live.answer, adapters=["<i>", "bee", "cat"]))
    said = seen(named, Choice(expert=0))
    for cut in CUTS:
        text = json.dumps(json.loads(cut.figure(said).to_json()), ensure_ascii=False)
        assert "<b>lie" not in text and "<i>" not in text, cut.name
    x = map_figure(said.grid, whole(said.grid), 0).data[0].x
    assert x[2] == "3 &lt;b&gt;lie&lt;/b&gt;␣" and len(set(x)) == len(x)
    assert "<b>lie" in said.grid.spans.texts[2], "a table escapes by itself"


def test_loads_are_counted_and_put_into_words(recorded, live):
    loads = loads_of(live)
    assert [load.title for load in loads] == ["A ant", "B bee", "C cat"]
    assert [load.led for load in loads] == [4 / 8, 2 / 8, 2 / 8]
    assert loads[0].mean == pytest.approx((0.5 / 3 + 0.5 * 4 / 8) / 8, rel=1e-2)
    assert loads_of(live, what="weight")[0].mean == pytest.approx(8 * loads[0].mean, rel=1e-2)
    assert sum(load.share for load in loads) == pytest.approx(1, abs=1e-3)
    assert [load.said for load in loads_of(recorded[MIXED])] == ["", "never leads", "never leads"]
    alone = loads_of(recorded["Voice command to JSON"])
    assert [load.said for load in alone] == ["", "never leads", "not used in this answer"]
    against = np.tile(np.float32([0.5, -0.3, 0.0]), (len(live.pieces), 1))
    against = replace(live, answer=replace(live.answer, effects=against))
    said = [load.said for load in loads_of(against, what="effect")]
    assert said == ["", "never leads", "not used in this answer"]
    headers, rows = loads_table([Side("this run", alone)])
    assert headers[1] == "tokens led" and rows[2][-1] == "not used in this answer"
    assert loads_of(asked("x", method="base")) == ()


def test_two_runs_keep_letters_and_colours(live):
    other = asked("Ships?", adapters=["cat", "dog"])
    mine, theirs = loads_of(live), loads_of(other, before=live.experts)
    assert [load.title for load in theirs] == ["C cat", "D dog"]
    sides = [Side("this run", mine), Side("pinned run", theirs)]
    headers, rows = loads_table(sides)
    assert headers[1].startswith("this run: ") and headers[5].startswith("pinned run: ")
    assert rows[0][0] == "A ant" and rows[0][5] == "absent" and rows[3][1] == "absent"
    figure = loads_figure(sides)
    first, second = figure.data[0], figure.data[2]
    assert first.marker.color[2] == second.marker.color[2] == ink_of(2).colour
    assert (first.x[3], second.x[0]) == (None, None) and second.marker.pattern.shape == "/"
    assert changed(sides).startswith("In both runs: cat;")
    assert "no adapter in common" in changed([sides[0], Side("pinned run", theirs[1:])])


def test_a_recorded_run_is_open_before_anything_is_asked(handlers):
    ui = handlers.ui
    shown = handlers.on_open(None, None, *START, *CLOSED)
    held = shown[ui.held]
    assert held.run.title == FIRST, "the first one in which adapters share the work"
    assert "Recorded run: " in shown[ui.head] and "ramole_plus, k = 3" in shown[ui.head]
    assert shown[ui.body].visible and shown[ui.view]["tokens"] and shown[ui.notice] == ""
    assert all(shown[part.plot].data for part in ui.pictures.values())
    assert shown[ui.pictures["layers"].table].value["data"] == [], "a folded table is not sent"
    choices = shown[ui.source].choices
    assert len(choices) == len(recorded_files()) and choices[0] == (f"recorded: {FIRST}", 0)
    assert shown[ui.controls[2]].choices[1] == ("A true_case", 0)
    assert set(handlers.on_open(None, held, *START, *CLOSED)) == {ui.held}, "nothing is new"
    assert set(shown) <= set(ui.all)


def test_the_answer_in_ask_is_shown_once_it_is_new(handlers, live):
    ui, first = handlers.ui, handlers.on_open(None, None, *START, *CLOSED)[handlers.ui.held]
    shown = handlers.on_open(live, first, *START, *OPEN)
    held = shown[ui.held]
    assert held.run is live and held.source == ASKED and held.name != first.name
    assert "Your answer in Ask" in shown[ui.head] and "<b>boats" not in shown[ui.head]
    assert shown[ui.source].choices[0] == ("the answer in Ask", ASKED)
    assert len(shown[ui.pictures["layers"].table].value["data"]) == len(WORDS)
    other = handlers.on_source(1, live, held, *START, *CLOSED)[ui.held]
    assert other.run.title == read_run(recorded_files()[1]).title
    assert set(handlers.on_open(live, other, *START, *CLOSED)) == {ui.held}, "it was chosen"
    for source in (99, -2, None, "x", held.source):
        assert set(handlers.on_source(source, live, held, *START, *CLOSED)) == {ui.held}
    base = handlers.on_open(asked("x", method="base"), other, *START, *CLOSED)
    assert not base[ui.body].visible and "No adapter was at work" in base[ui.notice]
    stopped = handlers.on_open(replace(live, pieces=()), other, *START, *CLOSED)
    assert not stopped[ui.body].visible and "before its first token" in stopped[ui.notice]
    empty = replace(handlers.sources, files=())
    nothing = InspectHandlers(handlers.ramole, ui, empty).on_open(None, None, *START, *CLOSED)
    assert "no answer yet" in nothing[ui.notice] and set(nothing) <= set(ui.all)


def test_the_last_answer_can_be_chosen_while_ask_has_none(handlers, live):
    ui = handlers.ui
    held = handlers.on_open(live, None, *START, *CLOSED)[ui.held]
    other = handlers.on_source(1, live, held, *START, *CLOSED)[ui.held]
    assert set(handlers.on_open(None, other, *START, *CLOSED)) == {ui.held}
    shown = handlers.on_source(ASKED, None, other, *START, *CLOSED)
    assert shown[ui.held].run is live and shown[ui.source].value == ASKED


def test_a_choice_draws_what_it_changes(handlers):
    ui = handlers.ui
    held = handlers.on_open(None, None, *START, *CLOSED)[ui.held]

    def chosen(names, *controls, opens=CLOSED):
        return handlers.on_choice(names)(held, None, *controls, *opens)

    one = chosen(["layer"], "contribution", "token", 1, 7.2, "up_proj")
    plot = ui.pictures["layer"].plot
    assert set(one) == {plot, ui.pictures["layer"].table}
    first, second, third = held.run.experts
    assert one[plot].layout.meta["title"] == f"Contribution of {second}, layer 7"
    effect = chosen(["loads"], "effect", "token", WINNER, None, None, opens=OPEN)
    assert effect[ui.pictures["loads"].table].value["headers"][2] == "mean effect (nats a token)"
    odd = chosen(["module"], "<x>", None, 99, float("nan"), "nobody")
    title = odd[ui.pictures["module"].plot].layout.meta["title"]
    assert title == f"Largest contribution, q_proj: A {first}, B {second}, C {third}"
    every = chosen([cut.name for cut in CUTS], "weight", "word", 0, 0, "v_proj", opens=OPEN)
    assert ui.marks not in every, "or a token that was picked meanwhile would be forgotten"
    assert every[ui.pictures["entropy"].plot].layout.meta["per"] == "word"
    assert every[ui.pictures["entropy"].table].value["headers"][1] == "word"
    assert every[ui.pictures["layers"].plot].layout.meta["title"].startswith(f"Weight of {first}")
    unfolded = handlers.on_fold(1)(held, *START, *CLOSED)
    assert unfolded[ui.pictures["layers"].open] is True
    assert len(unfolded[ui.pictures["layers"].table].value["data"]) == len(held.run.pieces)


def test_a_picked_token_is_told_and_marked(handlers, live):
    ui, held = handlers.ui, handlers.on_open(live, None, *START, *CLOSED)[handlers.ui.held]
    shown = pick(handlers, held, 2)
    assert "Token 3 of 8" in shown[ui.token] and "<b>lie" not in shown[ui.token]
    assert shown[ui.marks]["token"] == 2 and shown[ui.marks] == marks_of(live, held.name, 2)
    assert shown[ui.marks]["at"]["word"] == [0, 1, 2, 3, 3, 4, 4, 4]
    for index in (99, -1, None, "1"):
        assert pick(handlers, held, index) == {ui.token: PICK}
    assert pick(handlers, held, 2, run="another") == {ui.token: PICK}
    assert handlers.on_pick(None, SimpleNamespace(_data=None)) == {ui.token: PICK}


def test_the_player_has_every_token_s_shares(mixed):
    value = player_of(mixed, "me")
    assert [expert["letter"] for expert in value["experts"]] == ["A", "B", "C"]
    assert len(value["shares"]) == len(value["texts"]) == 33 and value["run"] == "me"
    assert np.allclose(value["shares"], mixed.shares, atol=6e-4)
    assert player_of(asked("x", method="base"), "me")["shares"] == []


def test_what_the_tab_keeps_counts_in_the_session_s_limit_and_recorded_runs_do_not(handlers, live):
    ui, store = handlers.ui, quota_of(handlers.ramole).presence.sessions
    held = handlers.on_open(None, None, *START, *CLOSED)[ui.held]
    handlers.weigh(VISITOR, held, held.run)
    assert held.run.title and store.bytes == 0
    held = handlers.on_open(live, None, *START, *CLOSED)[ui.held]
    handlers.weigh(VISITOR, held, live)
    assert store.bytes == weight_of(live) > 0, "each run once"
    other = asked("Which ships?")
    handlers.weigh(VISITOR, handlers.on_open(other, held, *START, *CLOSED)[ui.held], live)
    assert store.bytes == weight_of(live) + weight_of(other)
    store.leave("me")
    assert store.bytes == 0


def test_a_pinned_run_stands_beside_another(handlers, live, mixed):
    ui = handlers.ui
    held = handlers.on_open(live, None, *START, *CLOSED)[ui.held]
    pinned = handlers.on_pin(held, *START, *CLOSED)
    assert pinned[ui.pinned] is live and "This run is pinned" in pinned[ui.sides]
    place = [read_run(path).title for path in recorded_files()].index(MIXED)
    other = handlers.on_source(place, live, held, live, *START[1:], *OPEN)
    assert other[ui.both].visible and other[ui.against.plot].data
    assert "ramole, k = 3" in other[ui.sides] and "&lt;b&gt;boats" in other[ui.sides]
    assert "no adapter in common" in other[ui.sides] and other[ui.held].run.title == MIXED
    rows = other[ui.against.table].value["data"]
    assert [row[0] for row in rows] == ["A dart", "B e2e_nlg", "C wiki_split", "D ant", "E bee"] + [
        "F cat"
    ]
    gone = handlers.on_pin(other[ui.held], live, *START[1:], *CLOSED)
    assert gone[ui.pinned] is None and not gone[ui.both].visible


def test_effects_stand_upon_each_other_and_their_sums_over_words_are_log_probabilities(live):
    figure = effect_figure(live, per="word")
    headers, rows = effect_table(live, per="word")
    assert headers == ["#", "word", "base", "A, effect", "B, effect", "C, effect", "run"]
    assert len(rows) == 5 and [len(bar.x) for bar in figure.data] == [5] * 4
    for _, _, base, *effects, run in rows:
        assert base + sum(effects) == pytest.approx(run, abs=2e-3)
    assert sum(row[2] for row in rows) == -2 * len(WORDS)
    found = seen(live, Choice())
    assert (found.what, found.grid.what) == ("effect", "contribution")
    loads = found.side.loads
    assert [load.mean for load in loads] == pytest.approx(list(live.effects.mean(0)))
    assert sum(load.share for load in loads) == pytest.approx(0.75), "the base has the rest"
    assert "mean effect (nats a token)" in loads_table([found.side], what="effect")[0][2]


def test_everything_can_be_taken_away(handlers, live, tmp_path):
    held = handlers.on_open(live, None, *START, *CLOSED)[handlers.ui.held]
    said = seen(live, Choice())
    for cut in CUTS:
        path = write_table(cut.name, cut.table(said), into=tmp_path)
        assert path.read_bytes().startswith(BOM_UTF8), "or Excel garbles ␣"
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
        assert path.name == f"ramole-{cut.name}.csv"
        assert len(rows) == 1 + (3 if cut.name == "loads" else len(WORDS))
    odd = write_table("odd", (["#", "token"], [[-1.5, "=1+1"]]), into=tmp_path)
    assert odd.read_text("utf-8-sig").splitlines() == ["#,token", "-1.5,'=1+1"], "no formula"
    page = write_page(said, into=tmp_path).read_text("utf-8")
    told = page.replace(page[page.index("<script") : page.rindex("</script>")], "")
    assert "<b>lie" not in page and "&lt;b&gt;boats" in told and page.count("Plotly.newPlot") >= 5
    assert 'src="http' not in page and "cdn.plot.ly/plotly" not in page
    assert all(cut.title in page and cut.look in page for cut in CUTS)
    made = [handlers.on_table("loads"), handlers.on_table("against"), handlers.on_page]
    for make in made:
        assert make(held, live, *START[1:], *CLOSED).startswith("/")
    both = write_page(said, said.beside(live), into=tmp_path).read_text("utf-8")
    assert "mean effect (nats a token)" in both.rpartition("Loads of both runs")[2]
    npz, as_json = handlers.on_trace(VISITOR, held)
    with np.load(npz) as arrays:
        assert arrays["weights"].shape[1:] == (5, 2, 3)
    with open(as_json, encoding="utf-8") as file:
        assert json.load(file)["request"]["prompt"] == live.request.prompt
    with pytest.raises(gr.Error, match="nothing to take away"):
        handlers.on_page(None, *START, *CLOSED)
    with pytest.raises(gr.Error, match="no trace"):
        handlers.on_trace(VISITOR, None)
