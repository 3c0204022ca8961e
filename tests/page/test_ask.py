"""The tab Ask without a browser: its plain functions, driven with a fake system."""

import json
import math
import os
import re
import threading
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.context import Context

from ramole_core import (
    DEFAULT_METHOD,
    MAX_SHAPLEY,
    Fitting,
    RamoleError,
    Request,
    Selection,
    Step,
    facts_of,
    mean_contribution,
    write_trace,
)
from ramole_core.selection.part_stream import join
from tests.support.blocks import built
from tests.support.fake_ramole import (
    LAYERS,
    MODULES,
    OPTIONS,
    WORDS,
    FakeCard,
    FakeRamole,
    gate_of,
)
from ui.ask.answer import Live, answer, found_by, runs_of
from ui.ask.examples import RECORDED, earlier_runs
from ui.ask.form import FIELDS, Form, form_of
from ui.ask.found import found_html, timing_html
from ui.ask.layout import AskLayout
from ui.ask.pairs import text_of
from ui.ask.tab import AskHandlers
from ui.ask.updates import beside_text, done, part_by_part
from ui.charts.did import whole_html
from ui.charts.effect_bars import evenness_figure, evenness_table
from ui.charts.explained import explanation_html, token_html
from ui.charts.grid import grid_of
from ui.charts.heat import map_figure, whole
from ui.charts.palette import INKS, letter_of
from ui.charts.plots import inert, token_figure, token_table
from ui.charts.recorded import read_run, recorded_files, write_files, write_run
from ui.charts.run import NAMED, UNCOMPARED, FoundAdapter, Run, entropy, strongest
from ui.charts.tokens import (
    BASE_MEANING,
    CONTRIBUTED,
    EVEN_MEANING,
    FULL,
    GROWING,
    MEANING,
    Growing,
    view_of,
    view_of_run,
)
from ui.header import header
from ui.parts.asked import mixed_words
from ui.parts.downloads import sweep
from ui.parts.fields import USUAL, method_choices
from ui.parts.markup import notice_html
from ui.parts.prompts import LIVE
from ui.session import leaving
from ui.session.owner import owner_of


def tokens_of(view: dict) -> list[dict]:
    """The tokens of a view, as the browser reads them."""
    return [json.loads(line) for line in view["tokens"].splitlines()]


def ask(request: Request, *, ramole=None, beside=False):
    """The finished run, every picture before it, and the system that answered."""
    ramole, live = ramole or FakeRamole(), Live()
    shown = list(answer(ramole, request, live, beside=beside))
    return live.run, shown, ramole


def test_an_answer_grows_and_ends_with_the_run():
    run, shown, _ = ask(Request("boats?", k=3))
    assert run is shown[-1].run and all(picture.run is None for picture in shown[:-1])
    assert "".join(run.pieces) == run.answer.text == "".join(WORDS)
    lengths = [len(picture.pieces) for picture in shown[:-1]]
    assert lengths == sorted(lengths)
    assert run.experts == ["ant", "bee", "cat"]
    for t, row in enumerate(run.shares):
        np.testing.assert_allclose(row, gate_of(t, 3).mean((0, 1)), atol=1e-3)


def test_the_base_beside_it_comes_from_the_same_batch_and_is_not_said_twice():
    run, _, ramole = ask(Request("boats?"), beside=True)
    assert ramole.batches == 1 and ramole.forwards == len(WORDS)
    assert run.beside.adapters == [] and run.beside.trace is None
    assert run.beside.text == run.answer.text  # the fake says the same whatever is mixed
    assert beside_text(run) == run.beside.text
    alone, _, _ = ask(Request("boats?"))
    assert alone.beside is None and beside_text(alone) is None
    base, _, _ = ask(Request("boats?", method="base"), beside=True)
    assert beside_text(base) == "The same answer: no adapter was used above."
    assert beside_text(replace(base, beside=replace(base.beside, text="else"))) == "else"


def test_stopping_ends_the_run_and_keeps_what_came():
    ramole, live = FakeRamole(length=100_000, pause=0.001), Live()
    for picture in answer(ramole, Request("boats?", max_new_tokens=100_000), live, beside=False):
        if len(picture.pieces) >= 2:
            live.cancelled.set()
    assert ramole.running == 0 and live.ended.is_set()
    assert live.run.answer.finish_reason == "cancelled"
    assert 2 <= len(live.run.pieces) == live.run.answer.new_tokens < 100_000
    assert len(live.run.gates) == len(live.run.pieces)


def test_a_reader_who_goes_away_frees_the_engine():
    ramole, live = FakeRamole(length=100_000, pause=0.001), Live()
    pictures = answer(ramole, Request("boats?", max_new_tokens=100_000), live, beside=True)
    while not next(pictures).pieces:
        pass
    assert ramole.running == 1
    pictures.close()
    assert live.ended.wait(60) and ramole.running == 0
    assert live.run.answer.finish_reason == "cancelled"


def test_stopping_while_the_model_loads_asks_nothing_and_what_cannot_load_is_one_sentence():
    ramole, live = FakeRamole(loaded=False, pause=0.2), Live()
    pictures = answer(ramole, Request("boats?"), live, beside=False)
    next(pictures)
    live.cancelled.set()
    assert list(pictures) == [] and live.run is None and ramole.batches == 0
    ramole = FakeRamole(loaded=False)
    ramole.load_error = "There is no such base model; set RAMOLE_BASE_MODEL."
    with pytest.raises(RamoleError, match="no such base model"):
        ask(Request("boats?"), ramole=ramole)


@pytest.mark.parametrize(
    ("request_", "selection", "taken", "left"),
    [
        (Request("boats?", k=2), Selection(("ant", "bee"), (0.9, 0.7)), "ant bee", "cat dog"),
        (Request("boats?", method="base"), Selection((), ()), "", "ant bee cat"),
        (Request("boats?", exclude=["ant"]), Selection(("bee",), (0.7,)), "bee", "cat dog"),
        (Request("boats?", exclude=["ant", "bee", "cat"]), Selection(("dog",), (0.3,)), "dog", ""),
        (Request("boats?", exclude=["of-the-hub"]), Selection(("cat",), (0.5,)), "cat", "ant bee"),
        (Request("boats?"), Selection(("eel", "cat"), (math.nan, 0.5)), "eel cat", "ant bee"),
        (
            Request("boats?", adapters=["dog", "bee"]),
            Selection(("dog", "bee"), (math.nan,) * 2),
            "dog bee",
            "ant cat",
        ),
    ],
)
def test_those_who_answer_stand_first_in_their_order_and_the_nearest_others_behind(
    request_, selection, taken, left
):
    found = found_by(FakeRamole(), request_, selection)
    assert [one.name for one in found if one.taken] == taken.split()
    others = [one.name for one in found if not one.taken]
    assert others[: len(left.split())] == left.split() and len(others) <= 3
    assert found[: len(selection.adapters)] == tuple(one for one in found if one.taken)
    assert not set(others) & {*request_.exclude, *selection.adapters}
    how = NAMED if request_.adapters else UNCOMPARED
    assert {one.without for one in found if math.isnan(one.score)} <= {how}
    if any(map(math.isnan, selection.scores)):
        assert how in found_html(found)


class Choosy(FakeRamole):
    """Finds other adapters than those that are nearest; its tokens wait until they were seen."""

    def __init__(self):
        super().__init__()
        self.seen = threading.Event()

    def _names(self, request):
        return ["eel", "bee"][: request.k]

    def stream_batch(self, requests, **how):
        for item in super().stream_batch(requests, **how):
            assert self.seen.wait(60), "nobody was shown the adapters"
            yield item


def test_the_adapters_are_shown_before_the_first_token_and_are_those_that_answer():
    ramole, live, early = Choosy(), Live(), []
    for one in answer(ramole, Request("boats?", k=2), live, beside=False):
        if one.run is None and one.found:
            early.append(one)
            ramole.seen.set()
    assert early and not early[0].pieces
    assert {one.experts for one in early} == {("eel", "bee")}
    assert [one.name for one in early[0].found if one.taken] == ["eel", "bee"]
    assert live.run is not None and live.run.found == early[0].found


@pytest.mark.timeout(60)
def test_where_the_nearest_others_cannot_be_found_the_answer_still_comes():
    """The index may be out of reach by then, or the pool empty."""

    class Lost(FakeRamole):
        def retrieve(self, *asked, **options):
            raise RamoleError("The Chroma server cannot be reached.")

        def select(self, request):
            return Selection(("ant",), (0.9,))

    live = Live()
    shown = list(answer(Lost(), Request("boats?", adapters=["ant"]), live, beside=False))
    assert live.ended.is_set() and live.run is not None and shown[-1].run is live.run
    assert [one.name for one in live.run.found] == ["ant"]


def test_entropy_is_log_k_where_all_are_even_and_zero_where_one_has_all():
    gates = np.zeros((3, 4, 2, 5), np.float32)
    gates[0] = 0.2
    gates[1, ..., 3] = 1
    gates[2, :2] = 0.2  # half of the gates have no adapter at all
    np.testing.assert_allclose(entropy(gates, gates > 0), [math.log(5), 0, math.log(5)], atol=1e-6)
    by_hand = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    uneven = np.full((1, 2, 3, 2), [0.75, 0.25])
    there = np.ones(uneven.shape, bool)
    for gate in (uneven, uneven * [1, -1]):  # of both signs: by their sizes
        np.testing.assert_allclose(entropy(gate, there), [by_hand])
    uneven[0, 1] = 0.5
    there[0, 1] = False  # the gate gives shares, and nobody is there to take them
    np.testing.assert_allclose(entropy(uneven, there), [by_hand])


def test_the_view_merges_neighbours_and_says_what_the_colour_means():
    run, _, _ = ask(Request("boats?", k=3))
    view = view_of_run(run, "name")
    tokens = tokens_of(view)
    assert [token["e"] for token in tokens] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert [token["t"] for token in tokens] == list(WORDS)
    assert [one["letter"] for one in view["experts"]] == ["A", "B", "C"]
    assert [one["led"] for one in view["experts"]] == [0.5, 0.25, 0.25]
    means = run.shares.mean(0)
    assert [one["share"] for one in view["experts"]] == pytest.approx(list(means), abs=1e-3)
    assert view["meaning"] == CONTRIBUTED and not view["running"]
    assert json.loads(json.dumps(view)) == view


def test_what_was_measured_colours_the_tokens_that_an_adapter_changed():
    run, _, _ = ask(Request("boats?", k=3, effects=True))
    view = view_of_run(run, "name")
    tokens = tokens_of(view)
    assert [token["e"] for token in tokens] == [0, 0, 1, -1, 2, 2, 0, -1]
    assert {token["s"] for token in tokens if token["e"] >= 0} == {round(1.5 / FULL, 3)}
    assert {token["s"] for token in tokens if token["e"] < 0} == {0.0}
    assert tokens[0]["n"] == [1.5, -0.12, -0.12] and tokens[0]["w"] == [1, 0, 0]
    assert view["untouched"] == 0.25 and view["meaning"] == MEANING
    assert sum(one["share"] for one in view["experts"]) + view["untouched"] == pytest.approx(1)
    rows = run.contribution_shares[:2]
    faint = Growing("name").view(run.pieces[:2], rows, run.experts, running=True)
    assert faint["meaning"] == GROWING and faint["measure"] == "contribution"
    assert not faint["untouched"]
    four = view_of(["a"], [np.ones(5) / 5], list("abcde"), run="", running=False, measure="effect")
    assert "left out once" in four["meaning"]
    shares = [np.array([w, 1 - w]) for w in (0.6, 0.8, 1.0)]
    view = view_of(["a", "b", "c"], shares, ["ant", "bee"], run="", running=True)
    assert [token["s"] for token in tokens_of(view)] == pytest.approx([0.2, 0.6, 1.0])


def test_where_two_adapters_did_the_same_the_first_leads_and_the_base_did_not_say_it():
    """Effects are read in bfloat16, so that equal ones are common."""
    run, _, _ = ask(Request("boats?", k=3, effects=True))
    equal = run.answer.effects.copy()
    equal[1] = [-0.3, 0.54, 0.54]
    run = replace(run, answer=replace(run.answer, effects=equal))
    view = view_of_run(run, "name")
    assert tokens_of(view)[1]["e"] == 1 == run.leaders[1] == run.did(1).leader
    assert sum(one["share"] for one in view["experts"]) + view["untouched"] == pytest.approx(1)
    assert "<strong>B bee</strong> made this token 1.7 times likelier." in token_html(run, 1)


def test_each_adapter_that_is_mixed_says_what_it_does():
    ramole = FakeRamole()
    card = FakeCard("ant", description="This adapter carries <leaves>. It is an ant.")
    ramole.pool.cards = lambda owner=None: [card, FakeCard("bee")]
    found = found_by(ramole, Request("boats?"), Selection(("ant",), (0.9,)))
    assert [one.about for one in found][:2] == ["Carries <leaves>", ""]
    assert '<span class="about">Carries &lt;leaves&gt;</span>' in found_html(found)


def test_the_panel_of_a_token_is_one_bar_from_base_to_mixture_in_plain_words():
    run, _, _ = ask(Request("boats?", k=3, effects=True))
    said = token_html(run, 0)
    for words in (
        "<strong>A ant</strong> made this token 4.5 times likelier.",
        "base alone: 14 %",
        "with the adapters: 47 %",
        "(+1.50 nats, the natural logarithm of that; contribution 0.",
        "1.1 times less likely",
    ):
        assert words in said
    assert said.count('<i class="on"') == 1 and said.count('<i class="back"') == 2
    assert "The base alone would have said it nearly as readily" in token_html(run, 3)
    whole = whole_html(run.did_all, len(run.pieces))
    assert "base −16.0 + 4.1" in whole and "= −8.5 nats, −1.06 a token" in whole
    base, _, _ = ask(Request("boats?", method="base", effects=True))
    assert "by the base: −16.0 nats" in whole_html(base.did_all, 8)


def test_the_view_of_even_weights_and_of_the_base_names_no_expert():
    even = view_of(["a", "b"], [np.full(2, 0.5)] * 2, ["ant", "bee"], run="", running=False)
    assert [token["e"] for token in tokens_of(even)] == [-1, -1] and even["meaning"] == EVEN_MEANING
    run, _, _ = ask(Request("boats?", method="base"))
    base = view_of_run(run, "")
    assert base["experts"] == [] and base["meaning"] == BASE_MEANING
    assert len(tokens_of(base)) == len(WORDS)


def measured(run, *, contribution, present=None):
    """The run with other contributions, [k] in every module, and who is there."""
    trace = run.answer.trace
    told = np.broadcast_to(np.float16(contribution), trace.weights.shape)
    there = np.ones(told.shape, bool) if present is None else present
    trace = replace(trace, contribution=told * there, present=there)
    return replace(run, answer=replace(run.answer, trace=trace))


def test_leaders_shares_and_colours_come_from_contributions_not_from_weights():
    run, _, _ = ask(Request("boats?", k=3))
    said = token_html(run, 2)
    assert "Token 3 of 8" in said and "<strong>B bee</strong> contributed most" in said
    assert "log 3 = 1.10" in said and "weight 0.667" in said and "67 %" in said
    run = measured(run, contribution=[0.1, 0.1, 0.3])
    view = view_of_run(run, "name")
    assert [token["e"] for token in tokens_of(view)] == [2] * len(WORDS)
    assert [one["share"] for one in view["experts"]] == pytest.approx([0.2, 0.2, 0.6], abs=1e-3)
    assert "<strong>C cat</strong> contributed most" in token_html(run, 2)
    assert "contribution 0.3000, weight 0.167" in token_html(run, 2), "and weights are told beside"
    base, _, _ = ask(Request("boats?", method="base"))
    assert "No adapter" in token_html(base, 2)


def test_an_adapter_did_nothing_where_it_lacks_the_module():
    """Louder where it is, but there in few modules: it moved the model less."""
    run, _, _ = ask(Request("boats?", k=3))
    present = np.ones(run.answer.trace.weights.shape, bool)
    present[:, 1:, :, 2] = False  # the last one has the first layer only
    run = measured(run, contribution=[0.2, 0.1, 0.3], present=present)
    few = 0.3 / len(LAYERS)
    assert strongest(run.shares[0]) == 0
    np.testing.assert_allclose(run.shares[0], np.array([0.2, 0.1, few]) / (0.3 + few), atol=1e-3)
    _, rows = token_table(run, 0)
    assert rows[0][4] == pytest.approx(0.3, abs=1e-3) and rows[-1][4] == rows[-1][7] == "absent"
    assert rows[-1][2:4] == pytest.approx([0.2, 0.1], abs=1e-3)
    figure = token_figure(run, 0)
    assert figure.data[2].z[-1][0] is None and figure.data[0].z[-1][0] is not None


def test_a_view_that_grows_is_the_view_in_one_go_and_its_tokens_are_only_added_to():
    run, _, _ = ask(Request("boats?", k=3))
    shares, growing, texts = run.shares, Growing("name"), [""]
    for n in (0, 2, 3, len(WORDS)):
        view = growing.view(run.pieces[:n], shares[:n], run.experts, running=False)
        assert view == view_of(run.pieces[:n], shares[:n], run.experts, run="name", running=False)
        texts.append(view["tokens"])
    assert all(new.startswith(old) for old, new in pairwise(texts)) and texts[-1] > texts[-2]


def test_a_run_draws_its_own_adapters_where_the_trace_has_those_of_earlier_turns_too(tmp_path):
    run, _, _ = ask(Request("boats?", k=2))
    trace = run.answer.trace
    one_more = {"weights": 9, "contribution": 0, "present": False}
    wide = {
        name: np.insert(getattr(trace, name), 2, more, axis=-1) for name, more in one_more.items()
    }
    answered = replace(run.answer, trace=replace(trace, adapters=[*trace.adapters, "yak"], **wide))
    later = replace(run, answer=answered)
    assert later.experts == ["ant", "bee"]
    np.testing.assert_array_equal(later.gates, run.gates)
    assert view_of_run(later, "") == view_of_run(run, "")
    with np.load(write_trace(answered, tmp_path / "a.npz")) as kept:
        np.testing.assert_allclose(kept["scores"], [*answered.scores, math.nan])
    told = json.loads(write_trace(answered, tmp_path / "a.json").read_text("utf-8"))
    assert told["scores"] == [*answered.scores, None]


def test_the_head_counts_what_is_in_the_pool_when_a_page_opens():
    def events() -> list[object]:
        header(ramole)
        return list(Context.root_block.fns.values())

    ramole = FakeRamole()
    load, _ = built(events)
    for count in (4, 5):
        assert f"{count} add-ons" in "".join(map(str, load.fn()))
        ramole.pool.names.append("emu")


def test_token_text_never_becomes_markup():
    run, _, ramole = ask(Request("boats?"))
    run = replace(run, pieces=("<img src=x>", *run.pieces[1:]))
    explanation = ramole.explain(run.request, 3, top=10)
    for markup in (
        token_html(run, 0),
        found_html((FoundAdapter("<script>", 0.5, True),)),
        notice_html("<b>bold</b>", kind="wrong"),
        explanation_html(explanation, "<i>base</i>"),
    ):
        assert not re.search("<img|<script|<b>|<i>base", markup)
    assert "&lt;i&gt;base&lt;/i&gt;" in explanation_html(explanation, "")
    plain = explanation_html(explanation, WORDS[2])
    assert plain.count('class="chosen"') == 1 and plain.count("(chosen)") == 1
    assert "60.0 %" in plain and "50.0 %" in plain


def test_a_count_that_grows_is_not_read_out():
    """Neither the tokens so far nor the share that is done, which change many times a second."""
    counted = notice_html("Answering… part 1 of 2, 37 tokens", kind="busy")
    shared = notice_html("Finding adapters…", kind="busy", share=0.25)
    hidden = r'<span[^>]* aria-hidden="true">.*?</span>|<span aria-hidden.*?</span>'
    for shown, changes in ((counted, "part 1 of 2, 37 tokens"), (shared, "25 %")):
        heard = re.sub(hidden, "", shown)
        assert changes in shown and changes not in heard and "…" in heard
    assert "aria-hidden" not in notice_html("It ended… early.")


def test_without_any_adapter_the_panel_says_what_was_decided_and_no_promise():
    assert "appear here" in found_html(())
    shown = found_html((), asked=Request("Hi", method="base"), notes=["The Hub is away."])
    assert "appear here" not in shown and "The Hub is away." in shown
    assert "nearest ones" not in shown and "cosine" not in shown


def several_tasks(reason: str, *, unanswered: int) -> Run:
    """The last of two answers to a prompt with several tasks."""
    run, _, _ = ask(Request("boats?"))
    parts = [replace(run.answer, part=f"task {n}") for n in (1, 2)]
    parts[1] = replace(parts[1], finish_reason=reason)
    steps = [Step(0, text, None, part=n) for n in (0, 1) for text in run.pieces]
    pieces = tuple(step.text for step in steps)
    whole = replace(run, answer=join(parts, unanswered=unanswered), pieces=pieces)
    *_, last = runs_of(whole, steps)
    return last


def test_parts_that_were_stopped_or_left_are_not_called_answered():
    ended, stopped = several_tasks("eos", unanswered=0), several_tasks("cancelled", unanswered=0)
    assert part_by_part(ended, 2).endswith("by its own adapters. The answer has ended.")
    assert part_by_part(stopped, 2).endswith("The answer ended in part 2: stopped by you.")
    left = several_tasks("eos", unanswered=3)
    assert left.answer.finish_reason == "length"
    assert any("not answered: 3" in note for note in left.answer.notes)
    assert "the token limit was reached" in part_by_part(left, 2)
    assert not ended.answer.notes and ended.answer.finish_reason == "eos"


def test_similarities_stand_in_bars_and_in_numbers_and_those_left_out_are_folded():
    taken, other = FoundAdapter("ant", 0.3, True), FoundAdapter("dog", 0.2, False)
    said = found_html([taken, FoundAdapter("bee", math.nan, True), other])
    assert "0.300" in said and "width:30.0%" in said and "named" in said
    assert said.index("ant") < said.index("Left out") < said.index("dog")
    folded = "<details><summary>Left out{}</summary><ol"
    assert folded.format(": the next most similar") in found_html([taken, other])
    nearer = found_html([taken, replace(other, score=0.4)])
    assert folded.format(", though some are more similar") in nearer
    alone = found_html([other])
    assert "<h2>Most similar, not taken</h2><ol" in alone and "<details><summary>Left" not in alone


def test_plots_hold_the_numbers_of_their_tables():
    run, _, _ = ask(Request("boats?", k=3))
    figures = [token_figure(run, 2, what=what) for what in ("contribution", "weight")]
    headers, rows = token_table(run, 2)
    columns = [f"{letter} {what}" for what in ("contribution", "weight") for letter in "ABC"]
    assert headers == ["layer", "module", *columns]
    assert len(rows) == len(LAYERS) * len(MODULES)
    for layer, module, *told in rows:
        place = LAYERS.index(layer), MODULES.index(module)
        cells = [np.array(heat.z)[place] for figure in figures for heat in figure.data]
        np.testing.assert_allclose(cells, told, atol=1e-3)
    line, (_, rows) = evenness_figure(run), evenness_table(run)
    np.testing.assert_allclose(line.data[0].y, [row[-1] for row in rows], atol=1e-3)
    assert line.layout.shapes[0].y0 == pytest.approx(math.log(3))
    grid = grid_of(run)
    (heat,) = map_figure(grid, whole(grid), 1).data
    assert np.array(heat.z).shape == (len(LAYERS), len(run.pieces))
    means = mean_contribution(run.contribution)[:, 1]
    np.testing.assert_allclose(np.mean(heat.z, axis=0), means, atol=1e-3)
    assert heat.zmax == pytest.approx(means.max(), abs=1e-3), "the scale ends at the largest"


def test_what_strangers_wrote_is_no_markup_in_plots_and_long_names_do_not_overlap():
    evil = "<b>%{z}</b>"
    run, _, _ = ask(Request("boats?"))
    named = replace(run.answer, adapters=[evil, "long-" * 12, "c"])
    run = replace(run, answer=named, pieces=(evil,) * len(run.pieces))
    line, grid = evenness_figure(run), grid_of(run)
    heat = map_figure(grid, whole(grid), 0).data[0]
    assert line.data[0].x[0] == heat.x[0] == f"1 {inert(evil)}"
    token = token_figure(run, 0)
    assert heat.meta == f"A {inert(evil)}" and token.data[0].meta == inert(evil)
    assert all(evil not in one.hovertemplate for one in (heat, token.data[0]))
    titles = [one.text for one in token.layout.annotations]
    assert titles[0] == f"<b>A</b> {inert(evil)}" and titles[2] == "<b>C</b> c"
    assert titles[1] == "<b>B</b> long-long-long-…"


def test_letters_and_colours_go_on_past_the_last():
    assert [letter_of(e) for e in (0, 25, 26, 52)] == ["A", "Z", "A2", "A3"]
    assert len({ink.colour for ink in INKS}) == len(INKS)


def test_the_form_makes_the_request_and_the_request_the_form():
    same = {"method": "mixture", "k": 4, "max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9}
    same |= {"system": "Be brief."}
    form = Form(
        prompt="boats?",
        beside=False,
        pinned=["ant", "bee"],
        weights="0.7; 0.3",
        exclude=["cat"],
        seed=" 7 ",
        stop="END\n\\n\\n",
        mix_anyway=True,
        **same,
    )
    request = form.request("me")
    assert request == Request(
        "boats?",
        adapters=("ant", "bee"),
        weights=(0.7, 0.3),
        exclude=("cat",),
        seed=7,
        stop=("END", "\n\n"),
        owner="me",
        abstain=False,
        effects=True,
        **same,
    )
    assert form_of(request, beside=False).request("me") == request
    raw = replace(request, system=None, raw=True)
    assert replace(form, system="", raw=True).request("me") == raw
    assert form_of(raw, beside=False).request("me") == raw
    usual = Request("boats?", method="ramole_plus", max_new_tokens=64, effects=True)
    assert Form(prompt="boats?").request(None) == usual and usual.options is None
    warm = Form(prompt="boats?", options={"warmth": 1.5}).request(None)
    assert warm.options == {"warmth": 1.5} == form_of(warm, beside=False).options


def asking(ramole: FakeRamole) -> AskHandlers:
    """The tab's handlers over a page that nobody serves."""
    layout = built(lambda: AskLayout(ramole, recorded=["one"], live=[]))
    return AskHandlers(ramole, layout, recorded_files()[:1])


def test_a_recorded_run_is_read_once_for_all_visitors():
    handlers = asking(FakeRamole())
    shown = [
        handlers.recorded_run(SimpleNamespace(session_hash=name, headers={}), 0)
        for name in ("ann", "ben")
    ]
    ann, ben = (one[handlers.ui.run] for one in shown)
    assert ann.title and ann is ben, "or each page that is opened keeps its trace"


@pytest.mark.parametrize(
    ("method", "values", "options"),
    [
        ("mixture", (0.5, 3, False), {}),
        ("mixture", (1, 4.0, True), {"warmth": 1.0, "rounds": 4}),
        ("mixture", (None, None, True), {}),
        ("fusion", (1.5, 4, True), {"slow": True}),
        ("base", (1.5, 4, True), {}),
    ],
)
def test_the_chosen_methods_options_go_along_where_they_differ(method, values, options):
    handlers = asking(FakeRamole(options=OPTIONS))
    form = Form(prompt="boats?", method=method)
    made = handlers.form([*(getattr(form, name) for name in FIELDS), *values], {})
    assert made.options == options and made == replace(form, options=options)
    assert [type(value) for value in made.options.values()] == [type(v) for v in options.values()]
    groups = handlers.ui.entry.options.groups
    assert [group.visible for group in groups.values()] == [False, False]
    drawn = handlers.on_how(method, 3)
    seen = [name for name, group in groups.items() if drawn[group].visible]
    assert seen == [name for name in groups if name == method], "in sight while it is chosen"


def test_a_methods_options_are_fields_with_its_words_bounds_and_defaults():
    handlers = asking(FakeRamole(options=OPTIONS))
    warmth, rounds, slow = handlers.ui.entry.options.components
    assert (warmth.label, warmth.value) == ("warmth: How warm the mixture is", 0.5)
    assert (warmth.minimum, warmth.maximum, warmth.precision) == (0.0, 2.0, None)
    assert (rounds.minimum, rounds.maximum, rounds.precision) == (1, 9, 0)
    assert isinstance(slow, gr.Checkbox) and (slow.label, slow.value) == ("slow: Slowly", False)
    filled = handlers.ui.entry.options.filled("mixture", {"warmth": 1.5})
    assert list(filled.values()) == [1.5, 3, False], "of a request that comes back"
    form = Form(prompt="boats?", method="mixture")
    values = [*(getattr(form, name) for name in FIELDS), 0.5, 3.5, False]
    with pytest.raises(RamoleError, match="rounds is 3.5; give a whole number"):
        handlers.form(values, {})


def test_examples_are_in_sight_and_asked_with_only_where_a_method_finds_weights_on_them():
    handlers = asking(FakeRamole())
    pairs = handlers.ui.entry.pairs
    assert not pairs.group.visible and pairs.fits == {"lorahub"}
    assert handlers.on_how("lorahub", 3)[pairs.group].visible
    assert not handlers.on_how("fusion", 3)[pairs.group].visible

    def asked(form: Form, **instead) -> Request:
        return handlers.form([getattr(form, name) for name in FIELDS], instead).request("me")

    two = 'say => red\n\n{"inputs": "a => b", "targets": "c"}'
    form = Form(prompt="boats?", method="lorahub", examples=two)
    request = asked(form)
    assert request.examples == (("say", "red"), ("a => b", "c"))
    assert form_of(request, beside=True).request("me") == request
    assert asked(form, method="fusion").examples == ()
    kept = replace(form, mix="boats")
    request = asked(kept)
    assert (request.mix, request.examples) == ("boats", ())
    assert form_of(request, beside=True).mix == "boats"
    assert asked(kept, method="fusion").mix is None


def test_weights_that_were_found_are_kept_by_name_and_asked_with_in_place_of_examples():
    ramole = FakeRamole()
    handlers, visitor = asking(ramole), SimpleNamespace(session_hash="s1", headers={})
    run, _, _ = ask(Request("boats?", method="lorahub", examples=[("say", "red")]))
    (kept, emptied) = handlers.on_keep(visitor, run, "boats").values()
    assert (kept.choices, kept.value, emptied) == ([("boats", "boats")], "boats", "")
    assert handlers.on_names(visitor)[2]["choices"] == ["boats"]
    with pytest.raises(gr.Error, match="There is no answer yet"):
        handlers.on_keep(visitor, None, "boats")
    with pytest.raises(gr.Error, match="boats"):
        handlers.on_keep(visitor, run, "boats")
    plain, _, _ = ask(Request("boats?"))
    with pytest.raises(gr.Error, match="no weights that were found"):
        handlers.on_keep(visitor, plain, "others")


@pytest.mark.parametrize("secret", ["", "a secret of this tab alone"])
def test_kept_weights_go_with_the_page_that_kept_them(monkeypatch, secret):
    monkeypatch.setattr(leaving, "GRACE_SECONDS", 0.0)
    ramole, headers = FakeRamole(), {"x-ramole-session": secret} if secret else {}
    handlers, visitor = asking(ramole), SimpleNamespace(session_hash="s1", headers=headers)
    other = SimpleNamespace(session_hash="s2", headers={})
    run, _, _ = ask(Request("boats?", method="lorahub", examples=[("say", "red")]))
    for one in (visitor, other):
        handlers.on_keep(one, run, "boats")
    assert len(ramole.mix_owners()) == 2
    leaving.leave(ramole, "s1")
    leaving.sweep_sessions(ramole)
    assert ramole.mix_owners() == {owner_of(other)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty; give about 5 pairs"),
        (b"say red", "Line 1 of the examples is 'say red'; write"),
        (b'{"inputs": "a"}', "Line 1 of the examples"),
        (b'{"inputs": 4, "targets": "b"}', "Pair 1 of examples has 4 as input; give a text"),
        (b"a => b\n => c", "Pair 2 of examples has an empty input"),
        (b"caf\xe9 => a", "pairs.txt is not UTF-8 text at line 1"),
        ("\ufeffsay => red\n".encode(), None),
        ("say => red\r\nsing => loud".encode("utf-16"), None),  # as some editors write
        (b"say => red\rsing => loud", None),
    ],
)
def test_a_file_of_examples_is_read_or_one_sentence(tmp_path, data, reason):
    file = tmp_path / "pairs.txt"
    file.write_bytes(data)
    if reason is None:
        assert text_of(file).split("\n")[0] == '{"inputs": "say", "targets": "red"}'
    else:
        with pytest.raises(RamoleError, match=reason):
            text_of(file)


def test_an_answer_says_how_it_was_asked_and_how_long_each_stage_took():
    run, _, _ = ask(Request("boats?", k=2, method="mixture", max_new_tokens=9))
    asked = Request(
        "x", adapters=["<i>", "bee"], weights=[1.5, -0.5], temperature=0.5, top_p=0.9, seed=3
    )
    kept = Request("x", method="lorahub", mix="reds")
    for request, words in (
        (run.request, ("<dd>mixture, k = 2</dd>", "<dd>greedy, at most 9 tokens</dd>")),
        (run.request, ("20 ms", "10 ms", "250 ms", "5.6 tokens/s", "the model ended its answer")),
        (asked, ("ramole_plus, &lt;i&gt; 1.5, bee −0.5", "temperature 0.5, top-p 0.9, seed 3")),
        (kept, ("lorahub, the mix reds",)),
    ):
        assert all(one in timing_html(replace(run, request=request)) for one in words)


def test_a_true_minus_stands_at_numbers_alone_and_names_keep_their_hyphens():
    run, _, _ = ask(Request("boats?", adapters=["ant", "bee"], method="mixture"))
    names = ("my-ant", "my-bee")
    found = Fitting("lorahub", names, ("1", "2"), 40, 40, (1.25, -0.5), 1.5, 2.0, 9.0)
    said = timing_html(replace(run, answer=replace(run.answer, fitted=found)))
    assert "my-ant 1.250, my-bee −0.500" in said and "2.000 → 1.500" in said
    assert "40 steps of search" in said and "found" not in timing_html(run)
    asked = Request("boats?", adapters=list(names), weights=[1.25, -0.5], method="mixture")
    assert mixed_words(asked) == "mixture, my-ant 1.25, my-bee −0.5"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "empty"),
        ({"weights": "0.5"}, "without adapters"),
        ({"pinned": ["ant"], "weights": "half"}, "not numbers"),
        ({"pinned": ["ant"], "weights": "0.7,0.3"}, "2 weights for 1"),
        ({"pinned": ["ant"], "weights": "0.5 0.5"}, "2 weights for 1"),
        ({"seed": "1.5"}, "whole number, or none"),
        ({"k": None}, "whole number"),
    ],
)
def test_a_form_that_cannot_be_asked_says_why(fields, message):
    with pytest.raises(RamoleError, match=message):
        Form(**{"prompt": "boats?", **fields}).request(None)


def test_a_recorded_run_comes_back_whole(tmp_path):
    run, _, ramole = ask(Request("boats?", method="ramole", max_new_tokens=5), beside=True)
    explained = {i: ramole.explain(run.request, i + 1, top=3) for i in range(len(run.pieces))}
    shape = run.answer.trace.weights.shape
    trace = replace(run.answer.trace, present=np.arange(math.prod(shape)).reshape(shape) % 3 > 0)
    answered = replace(run.answer, trace=trace)
    run = replace(run, explained=explained, title="Boats", answer=answered)
    write_run(run, tmp_path / "boats.json")
    again = read_run(tmp_path / "boats.json")
    for name in ("request", "title", "pieces", "found"):
        assert getattr(again, name) == getattr(run, name), name
    for name in ("weights", "contribution", "present"):
        kept, told = getattr(again.answer.trace, name), getattr(trace, name)
        np.testing.assert_array_equal(kept, told)
        assert kept.dtype == told.dtype
    assert again.answer.text == run.answer.text and again.beside.text == run.beside.text
    assert set(again.explained) == set(explained)
    assert [t for t, _ in again.explained[1].mixture] == [t for t, _ in explained[1].mixture]
    assert recorded_files(tmp_path) == [tmp_path / "boats.json"]


def test_the_trace_files_hold_the_trace_and_what_was_asked_but_not_who_asked(tmp_path):
    asked = Request("Where?  <b>", k=3, owner="someone", temperature=0.5, seed=7, method="mixture")
    run, _, _ = ask(asked)
    facts, trace = facts_of(FakeRamole(), adapters=run.answer.adapters), run.answer.trace
    npz, as_json = write_files(run, facts=facts, into=tmp_path)
    assert (npz.name, as_json.name) == (
        "ramole-mixture-where-b.npz",
        "ramole-mixture-where-b.json",
    )
    assert b"someone" not in npz.read_bytes() and "someone" not in as_json.read_text()
    told = json.loads(as_json.read_text("utf-8"))
    with np.load(npz, allow_pickle=False) as kept:
        for name in ("weights", "contribution", "present", "shares"):
            np.testing.assert_array_equal(kept[name], getattr(trace, name))
            np.testing.assert_allclose(told[name], getattr(trace, name), atol=1e-4)
        for name in ("tokens", "token_ids", "adapters", "layers", "modules"):
            assert kept[name].tolist() == getattr(trace, name) == told[name], name
        assert kept["version"] == told["version"] == 4
        assert kept["contribution"].dtype == kept["weights"].dtype == np.float16
        assert int(kept["prompt_length"]) == trace.prompt_length
        assert json.loads(str(kept["facts"])) == facts == told["facts"]
        assert json.loads(str(kept["request"])) == told["request"]
    assert Request(**told["request"]) == replace(asked, owner=None)
    assert told["answer"] == run.answer.text
    assert facts["adapters"] == {name: "c" * 64 for name in ("ant", "bee", "cat")}


def test_a_trace_that_cannot_be_written_is_one_sentence(monkeypatch, caplog):
    handlers, me = asking(FakeRamole()), SimpleNamespace(session_hash="me", headers={})
    run, _, _ = ask(Request("boats?"))
    assert len(handlers.on_take(me, run)) == 2

    def full(*_, **__):
        raise OSError("No space left on /srv/data")

    monkeypatch.setattr("ui.charts.recorded.write_files", full)
    with pytest.raises(gr.Error, match="Something went wrong on the server"):
        handlers.on_take(me, run)
    assert "No space left" in caplog.text, "its log says what"


def test_a_trace_without_weights_or_with_another_ending_is_refused(tmp_path):
    run, _, _ = ask(Request("boats?", trace=False))
    with pytest.raises(RamoleError, match="no trace"):
        write_trace(run.answer, tmp_path / "a.npz")
    run, _, _ = ask(Request("boats?"))
    with pytest.raises(RamoleError, match=r"\.npz or \.json"):
        write_trace(run.answer, tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_old_trace_folders_are_swept_and_nothing_else(tmp_path):
    run, _, _ = ask(Request("boats?"))
    npz, _ = write_files(run, into=tmp_path)
    (tmp_path / "other").mkdir()
    sweep(tmp_path, older_than=60)
    assert npz.exists()
    for folder in (npz.parent, tmp_path / "other"):
        os.utime(folder, (0, 0))
    sweep(tmp_path, older_than=60)
    assert not npz.exists() and (tmp_path / "other").exists()


def test_the_usual_five_methods_stand_first_each_with_a_sentence():
    choices = method_choices(FakeRamole())
    assert [name for _, name in choices[:5]] == [*USUAL]
    assert all(label.startswith(f"{n}: ") and len(label.split()) >= 4 for label, n in choices[:5])
    for label, name in choices[5:]:
        assert label in (f"{name} (from papers)", f"{name} (a control)")
    assert len(choices) == len(FakeRamole().methods())


def test_live_examples_are_requests_and_recorded_runs_are_of_them():
    for example in LIVE:
        Request(example.prompt, max_new_tokens=example.max_new_tokens)
    kept = [read_run(path) for path in recorded_files()]
    asked = [(run.title, run.request.prompt, run.request.method) for run in kept]
    assert asked == [(example.title, example.prompt, example.method) for example in RECORDED]
    chats = [run for run in kept if run.request.history]
    assert [run.title for run in chats] == [one.title for one in RECORDED if one.after]
    for run in chats:
        (first,) = earlier_runs(run, recorded_files()).values()
        assert first.title in {example.after for example in RECORDED}


def test_recorded_examples_are_small_and_complete():
    decisions = set()
    for path in recorded_files():
        assert path.stat().st_size < 450_000, path.name
        run = read_run(path)
        assert run.title and run.beside is not None and run.found
        assert set(run.explained) == set(range(len(run.pieces)))
        evidence = run.answer.evidence
        if evidence is not None:
            decisions.add(evidence.decision)
            nearest = max((one.score, one.name) for one in run.found if math.isfinite(one.score))
            assert evidence.nearest == nearest[1], run.title
            assert evidence.similarity == pytest.approx(nearest[0], abs=1e-3), run.title
        left = evidence is not None and evidence.decision == "base"
        assert run.experts or left, "only the base has none"
        assert left or run.contribution_shares.sum(1) == pytest.approx(1, abs=1e-3)
        assert run.effects is not None and run.effects.shape == (len(run.pieces), len(run.experts))
        gap = run.answer.logprob - run.answer.base_logprob - run.effects.sum(1)
        assert len(run.experts) > MAX_SHAPLEY or np.abs(gap).max() < 1e-3
    assert decisions >= {"adapters", "base"}
    first = read_run(recorded_files()[0])
    assert first.request.method == DEFAULT_METHOD and first.answer.evidence.decision == "adapters"
    assert first.answer.text not in first.beside.text, "the base fails where the adapters do not"


def test_weights_beyond_0_and_1_are_drawn_as_such_with_their_sign():
    run, _, _ = ask(Request("boats?", k=2))
    weights = np.full_like(run.answer.trace.weights, 0.25)
    weights[:, 0, 0] = -0.5, 2.0

    def weighed(weights):
        trace = replace(run.answer.trace, weights=weights)
        return replace(run, answer=replace(run.answer, trace=trace))

    def drawn(weights):
        return token_figure(weighed(weights), 0, what="weight").data

    for heat in drawn(weights):
        assert (heat.zmin, heat.zmax) == (-0.5, 2.0)
        assert [place for place, _ in heat.colorscale] == [0.0, 0.2, 1.0], "nothing is drawn at 0"
    assert drawn(weights)[0].z[0][0] == -0.5
    plain = drawn(np.abs(weights) / 2)[0]
    assert (plain.zmin, plain.zmax) == (0.0, 1.0)
    assert len(plain.colorscale) == 2
    negative = np.broadcast_to(np.float16([-0.4, 1.2]), weights.shape)
    html = token_html(weighed(negative), 0)
    assert "−A" in html and ">B<" in html and "-0.400" in html and "1.200" in html


def test_an_answer_that_was_cut_and_weights_beyond_0_and_1_are_said():
    ui = asking(FakeRamole()).ui
    run, _, _ = ask(Request("boats?"))
    cut = replace(run.answer, finish_reason="length", trace=None)
    cut = replace(run, beside=cut, request=replace(run.request, adapters=["ant"], weights=[-1.0]))
    assert done(ui, cut, "a")[ui.outcome.beside].endswith("… (cut at 8 tokens, the limit)")

    def notice(run: Run) -> str:
        return done(ui, run, "a")[ui.outcome.notice]

    assert "works against its adapter" in notice(cut) and "works against" not in notice(run)
    assert "The answer has ended: 8 tokens." in notice(cut)
    assert "The answer has ended: 1 token." in notice(replace(run, pieces=run.pieces[:1]))
