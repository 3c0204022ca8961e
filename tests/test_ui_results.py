"""The tab Results without a browser: files in every state, tables, marks, commands, the picture."""

import copy
import importlib.util
import json
import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.results_page import EVIL, FILES, METHODS, evaluation as written, write_results
from ui.results import methods, stresses, updates as results_updates
from ui.results.answers import answers_html, earlier_html, finding
from ui.results.closer import by_task_html, differences_html, in_words
from ui.results.figure import inks_of, scores_figure
from ui.results.files import COMMANDS, RESULTS, Unmeasured, load, stamp
from ui.results.glance import glance_html
from ui.results.scores import FURTHER, SHIPPED, earlier, evaluation, evaluation_of
from ui.results.sections import command_html
from ui.results.short import bars_of, headline, short_html
from ui.results.speed import machines_of
from ui.results.tables import Scale, spoken, whisker
from ui.results.values import Span, span_of

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_results(tmp_path / "results")


class Tables(HTMLParser):
    """Every table as (caption, rows of cell texts), and each cell's tag with its scope."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.scopes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append(("", []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")
            self.scopes.append((tag, dict(attrs).get("scope")))
        if tag not in ("wbr", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, text):
        if "caption" in self.open:
            caption, rows = self.tables[-1]
            self.tables[-1] = (caption + text, rows)
        elif "td" in self.open or "th" in self.open:
            self.tables[-1][1][-1][-1] += text

    def named(self, caption: str) -> list[list[str]]:
        """The rows of the one table whose caption begins so."""
        (rows,) = [rows for name, rows in self.tables if name.startswith(caption)]
        return rows


def everything(folder: Path, *, pictures: bool = True) -> str:
    """All the HTML of the tab, each setting included; raises where the tab would show a failure."""
    found, missing = evaluation(folder)
    parts = [short_html(found), glance_html(folder, found), answers_html(found, missing)]
    for setting in found.settings if found else ():
        parts += [differences_html(found, setting), by_task_html(found, setting)]
        if pictures:
            scores_figure(found, setting)
    return "".join([*parts, results_updates.rest_html(folder, found)])


def test_every_method_stands_in_its_row_and_the_best_mixing_is_bold(folder):
    html = everything(folder)
    rows = Tables(html).named("Mean score of each method")
    assert rows[0] == ["method", "IID", "OOD", "crowded"]
    assert [row[0] for row in rows[1:]] == list(METHODS)
    assert rows[2] == ["ramole", "57.4 [54.4, 60.4]", "34.2 [31.2, 37.2]", "53.0 [50.0, 56.0]"]
    assert rows[6][3] == rows[7][2] == "–", "base and perfect are not in every setting"
    assert rows[1][1] == "61.2 [58.2, 64.2] (the best)", "selection is higher, but mixes nothing"
    assert rows[4][1] == "63.5 [60.5, 66.5]"
    assert "Without mixing, selection scores 63.5." in html


def test_the_best_mixing_is_looked_for_in_each_setting(folder):
    raw = written()
    raw["cells"]["ood"]["mixture"]["mean"] = 40.0
    found = evaluation_of(raw)
    assert found and [found.best(name) for name in found.settings] == [
        "ramole_plus",
        "mixture",
        "ramole_plus",
    ]
    assert finding(found, "ood") == "OOD: mixture mixes best, 40.0 (the base alone 11.3)."


def test_lenient_scores_and_retrieval_stand_by_setting(folder):
    shown = Tables(everything(folder))
    rows = shown.named("Lenient scores")
    assert rows[0] == ["method", "IID"], "the others were not scored so"
    assert [row for row in rows if row[1] != "–"][1:] == [
        ["ramole", "59.5 [56.5, 62.5]"],
        ["base", "20.2 [17.2, 23.2]"],
    ]
    rows = shown.named("For the prompts of the first section")
    assert [row[0] for row in rows[1:]] == ["IID"], "in OOD the right adapter is hidden"


def test_aims_are_said_in_words(folder):
    rows = Tables(everything(folder)).named("Aims that were set")
    assert [row[1] for row in rows[1:]] == ["reached", "not reached", "not known yet"]
    assert rows[1] == ["OOD, over mixture", "reached", "2 points", "4.7"]


def test_what_ships_stands_first_and_the_earlier_test_folded_below(folder):
    assert earlier_html(earlier(folder)) == "", "one table alone is not an earlier one"
    raw = written() | {"skipped": 60, "split": "dev", "command": "python -m ramole_core evaluate X"}
    raw["cells"]["iid"]["mixture"]["mean"] = 33.3
    (folder / SHIPPED).write_text(json.dumps(raw))
    shown = everything(folder)
    rows = Tables(shown).named("Mean score of each method")
    assert [row[1] for row in rows if row[0] == "mixture"][0].startswith("33.3")
    assert "rows a task after the first 60, dev split" in shown and "evaluate X" in shown
    below = earlier_html(earlier(folder))
    rows = Tables(below).named("Mean score of each method")
    assert [row[1] for row in rows if row[0] == "mixture"][0].startswith("52.1")
    assert "<details>" in below and "test rows" in below


def test_situations_of_a_file_of_their_own_are_among_the_tables(folder):
    told = {"what": "own words", "unit": "adapter", "questions": 6, "units": 2}
    told |= {"systems": {"mixture": {"right": {"mean": 91.5, "low": 88.0, "high": 95.0}}}}
    aim = {"what": "phrased: first", "aim": "95 %", "measured": "91.5", "reached": False}
    raw = {"command": "python -m ramole_core evaluate Y", "situations": {"phrased": told}}
    (folder / FURTHER).write_text(json.dumps(raw | {"aims": [aim]}))
    assert "phrased" not in everything(folder), "not without the table that ships"
    (folder / SHIPPED).write_text(json.dumps(written()))
    shown = everything(folder)
    rows = Tables(shown).named("phrased: own words")
    assert any(row[:2] == ["mixture", "91.5 [88.0, 95.0]"] for row in rows)
    aims = Tables(shown).named("Aims that were set")
    assert ["phrased: first", "not reached", "95 %", "91.5"] in aims and "evaluate Y" in shown


def test_all_methods_stand_in_one_table_with_what_they_need(folder):
    rows = Tables(everything(folder)).named("All methods")
    assert rows[0][:4] == ["method", "IID", "OOD", "tokens/s alone"]
    named = {row[0]: row[1:] for row in rows[1:]}
    assert list(named) == ["ramole_plus", "ramoleRAMoLE", "mixture", f"mole{EVIL}"]
    # 2.5 behind for ramole_plus is 2.5 ahead for the rival, and its interval is turned with it
    assert named["ramoleRAMoLE"][0] == "57.4 [54.4, 60.4]+2.5 [−4.0, +9.0]"
    assert "+" not in named["ramoleRAMoLE"][1] and "+" not in named["mixture"][0]
    rest = ["31.4 [30.0, 33.0]", "180.0 [170.0, 181.0]", "1.3 M", "yes"]
    assert named["ramoleRAMoLE"][2:] == rest and named["mixture"][2:] == ["–"] * 4
    assert named[f"mole{EVIL}"][:2] == ["–"] * 2
    assert named[f"mole{EVIL}"][3:] == ["–", "none", "no"]


def test_all_methods_stand_in_situations_beyond_the_rows_of_one_task(folder):
    shown = methods.html(folder)
    rows = Tables(shown).named("switch: chats of two tasks")
    assert [row[0] for row in rows[1:]] == ["ramole_plus", f"mole{EVIL}"]
    assert rows[1][1].startswith("53.0") and "python -m x.further" in shown


@pytest.mark.parametrize("gone", ["methods.json", "methods_dev.json", "methods_further_dev.json"])
def test_the_table_of_all_methods_says_what_was_not_measured(folder, gone):
    (folder / gone).unlink()
    shown = methods.html(folder)
    assert "Not measured yet" in shown and len(Tables(shown).named("All methods")) > 2


def test_the_papers_own_cases_have_their_tables(folder):
    shown = stresses.html(folder)
    tables = Tables(shown)
    composite = tables.named("composite-2: 2 questions of 2 tasks")
    assert composite == [
        ["method", "score", "right adapters found, %"],
        ["meteora", "31.0 [28.0, 34.0]", "99.0 [96.0, 102.0]"],
    ]
    recovery = tables.named("CA-LoRA, the base rounded to 3 bits")
    assert recovery[1:] == [
        ["uncompressed base, its adapter", "40.0 [37.0, 43.0]", "+2.0 [+1.5, +2.5]"]
        + ["1.250 [1.125, 1.375]"],
        ["the same adapter", "41.0 [38.0, 44.0]", "+1.0 [+0.5, +1.5]", "2.250 [2.125, 2.375]"],
        ["ca_lora", "42.0 [39.0, 45.0]", "–", "3.250 [3.125, 3.375]"],
    ]
    assert tables.named("CA-LoRA, the base NF4, the control")[1:] == recovery[1:]
    mixed = tables.named("LLaVA-MoLE, trained on a mixture of a, b")
    assert [row[0] for row in mixed[1:]] == ["one LoRA", EVIL, "llava_mole"]
    assert "Intervals are over 2 tasks." in shown


def test_the_paper_s_table_stands_beside(folder):
    rows = Tables(everything(folder)).named("As published, on larger bases")
    assert rows[1:] == [["perfect selection", "55.4", "–"], ["RAMoLE", *rows[2][1:]]]
    raw = written()
    raw["published"]["rows"] = {"RAMoLE": [51.8], "mixture": [49.8, 45.6, 58.8]}
    (folder / "evaluation.json").write_text(json.dumps(raw))
    shorter = Tables(everything(folder)).named("As published, on larger bases")
    assert shorter[1][2] == "–" and shorter[2][1:] == ["49.8", "45.6 (the best)"]
    assert [cell.split()[0] for cell in rows[2][1:]] == ["51.8", "47.7"]


def test_tasks_are_grouped_by_domain_and_follow_the_setting(folder):
    found, _ = evaluation(folder)
    rows = Tables(by_task_html(found, "ood")).named("Score by task, OOD")
    assert rows[0] == ["task", *(name for name in METHODS if name != "perfect")]
    assert [row[0] for row in rows[1:]] == ["sentiment", "sst2em", "reasoning", "copaem", EVIL] + [
        "e2e_nlgrouge"
    ]
    assert rows[2][1:3] == ["29", "27"] and rows[6][1] == "43"
    assert "perfect" in Tables(by_task_html(found, "iid")).tables[0][1][0]


def test_a_difference_says_whether_it_is_one():
    assert in_words(Span(2.0, 0.5, 3.5)) == "clearly ahead"
    assert in_words(Span(-2.0, -3.5, -0.5)) == "clearly behind"
    assert in_words(Span(2.0, -0.5, 4.5)) == "no clear difference"
    assert in_words(Span(2.0)) == "interval not measured"


def test_the_picture_has_the_numbers_of_the_table(folder):
    found, _ = evaluation(folder)
    figure = scores_figure(found, "iid")
    drawn = {trace.y[0]: trace for trace in figure.data}
    assert list(drawn) == list(METHODS)
    mixture = drawn["mixture"]
    assert mixture.x[0] == 52.1
    assert mixture.error_x.array[0] == pytest.approx(3) == mixture.error_x.arrayminus[0]
    assert tuple(figure.layout.yaxis.categoryarray) == tuple(METHODS)[::-1], "the first is on top"
    assert drawn["base"].marker.symbol == "circle-open" != mixture.marker.symbol
    assert len(scores_figure(found, "ood").data) == len(METHODS) - 1


def test_a_method_keeps_its_colour_and_controls_have_none():
    inks = inks_of(list(METHODS))
    assert len({inks[name] for name in ("ramole_plus", "ramole", "mixture", "selection")}) == 4
    assert inks["base"] == inks["perfect"] == inks["uniform_router"] not in (inks["ramole"],)


def test_retrieval_shows_seeds_parts_groups_and_the_published_rows(folder):
    shown = Tables(everything(folder))
    rows = shown.named("By the paper's protocol: 48 LoRAs, 2371 prompts")
    assert rows[0] == ["retriever", "prompts", *(f"top-{k}" for k in (1, 3, 5, 8))] + [
        "top-1twins merged",
        "top-1interval over tasks",
    ]
    assert rows[2][:3] == ["untuned", "all prompts", "61.0 [59.0, 63.0]"]
    assert rows[5][:3] == ["tuned on 40%", "tasks it never saw", "67.0 [65.0, 69.0]"]
    assert rows[5][-1] == "67.0 [57.0, 77.0]", "over tasks"
    assert rows[-1][2:6] == ["51.7", "73.1", "80.5", "87.2"], "as published"
    rows = shown.named("The shipped retriever")
    assert [row[0] for row in rows[1:]] == ["unseen tasks of the data, 77 prompts"] + [
        "untuned",
        "shipped",
    ]
    assert rows[3][1] == "86.0 [84.0, 88.0]"


def test_adapters_show_rivals_and_gain_and_one_command(folder):
    html = everything(folder)
    rows = Tables(html).named("Sample adapters")
    assert rows[1][:7] == ["sst2", "em", "50", "10.0", "50.0", "21.0", "44.0"]
    assert rows[1][7] == "+34.0 [+31.0, +37.0]" and rows[2][7] == "+1.0 [−2.0, +4.0]"
    assert rows[2][4] == "–", "a task without options has no chance"
    assert html.count("<code>python -m lab dev_table --rows 50</code>") == 1
    assert "<b>1 of 2</b><span>clearly beat the base" in html


def test_tasks_of_adapters_that_came_later_have_a_table(folder):
    rows = Tables(everything(folder)).named("Tasks whose adapters the router was never trained on")
    assert rows[0] == ["method", "OOD"]
    assert [row[1] for row in rows if row[0] == "ramole"][0].startswith("31.5 [")


def test_an_adapter_helps_only_where_lenient_scoring_says_so_too(folder):
    raw = json.loads((folder / "adapters_dev.json").read_text())
    raw["adapters"]["sst2"]["lenient"]["gain_over"]["base"] = {"mean": 2, "low": -1, "high": 5}
    (folder / "adapters_dev.json").write_text(json.dumps(raw))
    assert "<b>0 of 2</b><span>clearly beat the base" in everything(folder)


def test_a_part_measured_on_another_machine_says_so(folder):
    raw = json.loads((folder / "speed.json").read_text())
    one = {"cpu": "Slow One", "threads": 2, "dtype": "bfloat16", "quantization": "none"}
    raw["parts"] = {part: {"machine": one} for part in ("decode", "prefill")}
    raw["parts"]["retrieval"] = {"machine": {**one, "cpu": "Fast One"}}
    where = "2 threads, bfloat16, quantization none"
    assert machines_of(raw) == {
        f"Slow One, {where}": ["decode", "prefill"],
        f"Fast One, {where}": ["retrieval"],
    }
    (folder / "speed.json").write_text(json.dumps(raw))
    shown = everything(folder)
    assert "machine of retrieval" in shown and "Fast One" in shown


def test_the_routers_tile_counts_where_the_gate_wins_whichever_tasks_are_drawn(folder):
    def setting(**gap):
        return {"loss": {"trained": 1.2}, "trained_minus": {"uniform": {"mean": -0.03, **gap}}}

    raw = {"own": setting(low=-0.04, high=-0.02, set_low=-0.06, set_high=0.01)}
    raw["others"] = setting(low=-0.04, high=-0.02)
    (folder / "router_dev.json").write_text(json.dumps(raw))
    html = everything(folder)
    assert "<b>1 of 2</b><span>tests in which its training beats equal weights" in html
    assert "equal weights (loss, random adapters)" in html
    raw["own"]["trained_minus"]["uniform"]["set_high"] = -0.01
    (folder / "router_dev.json").write_text(json.dumps(raw))
    assert "<b>2 of 2</b><span>tests in which its training" in everything(folder)
    raw["own"]["trained_minus"]["uniform"] |= {"task_low": -0.06, "task_high": 0.0004}
    (folder / "router_dev.json").write_text(json.dumps(raw))
    assert "<b>1 of 2</b><span>tests in which its training" in everything(folder)


def test_situations_have_their_measures_parts_and_the_way(folder, monkeypatch):
    shown = Tables(everything(folder))
    rows = shown.named("switch: chats of two turns")
    assert rows[0] == [
        "method",
        "score",
        "left to the base, %",
        "odd",
        "way from mixture to perfect, %",
    ]
    assert rows[1][:3] == ["mixture", "30.0 [27.0, 33.0]", "0.0 [0.0, 0.0]"]
    assert rows[2][1] == "44.0 [41.0, 47.0]" and rows[2][-1] == "91.0 [88.0, 94.0]"
    rows = shown.named("open: everyday prompts")
    assert rows[-2:] == [["unseen families"], ["ramole_plus", "98.0 [95.0, 101.0]"]]
    assert "cannot be read" not in everything(folder)
    readme = generator()
    monkeypatch.setattr(readme, "REPOSITORY", folder.parent)
    lines = readme.measured().splitlines()
    assert "| `ramole_plus` | 44.0 [41, 47] | 1.0 [0, 2] | 7.0 | 91.0 [88, 94] |" in lines
    assert "| `ramole_plus`, unseen families | 98.0 [95, 101] |" in lines


def test_the_answers_say_what_their_retriever_was_tuned_on(folder):
    html = everything(folder)
    assert "The retriever was tuned on" not in html, "of this one nobody knows"
    raw = json.loads((folder / "evaluation.json").read_text())
    raw["retriever_checksum"] = "ef" * 32  # the shipped one, as retriever.json says
    (folder / "evaluation.json").write_text(json.dumps(raw))
    assert "The retriever was tuned on other rows of 1 of these 3 tasks." in everything(folder)
    raw["retriever_tuned_on"] = list(raw["tasks"])
    (folder / "evaluation.json").write_text(json.dumps(raw))
    assert "The retriever was tuned on other rows of all these 3 tasks." in everything(folder)


def test_readme_shows_what_ships_where_that_was_measured(folder, monkeypatch):
    readme = generator()
    monkeypatch.setattr(readme, "REPOSITORY", folder.parent)
    assert readme.score_tables.short(folder).startswith("3 tasks, 100 rows a task, test split")
    raw = json.loads((folder / "evaluation.json").read_text()) | {"split": "dev"}
    (folder / "evaluation_dev.json").write_text(json.dumps(raw))
    said = readme.score_tables.short(folder)
    assert said.startswith("The system as it ships, on held-out dev rows") and "dev split" in said
    assert "intervals over rows" in said


def test_ablations_are_grouped_and_judged_by_their_interval(folder):
    rows = Tables(everything(folder)).named("Ablations of the router")
    names = ["Leaving adapters out while training", "dropout 0.5", "no dropout"]
    assert [row[0] for row in rows[1:]] == [*names, "Rank of the router", "rank 12"]
    assert [row[5] for row in rows if len(row) == 6][1:] == [
        "better",
        "worse",
        "no clear difference",
    ]
    assert rows[2][1:4] == ["1.200 [1.150, 1.250]", "1.190 to 1.210", "uniform"]


def test_where_higher_is_better_the_same_numbers_say_the_opposite(folder):
    raw = json.loads((folder / "router_ablations.json").read_text())
    raw["measure"] = "score, higher is better"
    (folder / "router_ablations.json").write_text(json.dumps(raw))
    rows = Tables(everything(folder)).named("Ablations of the router")
    assert [row[5] for row in rows if len(row) == 6][1:3] == ["worse", "better"]


def test_the_pieces_of_ramole_plus_have_a_table_of_their_own(folder):
    rows = Tables(everything(folder)).named("What each piece of ramole_plus is worth")
    assert rows[1][0] == "OOD: the right adapter is hidden"
    assert rows[2] == [
        "all pieces",
        "45.0 [44.0, 46.0]",
        "–",
        "selection",
        "+2.0 [+1.5, +2.5]",
        "better",
    ]


def test_speed_shows_aims_peers_and_many_users(folder):
    shown = Tables(everything(folder))
    rows = shown.named("Aims of the engine")
    assert rows[1] == ["decode, k3 / base", "reached", "0.71 [0.70, 0.80]", "0.7"]
    assert rows[2][1] == "not reached"
    assert shown.named("Tokens a second beside PEFT")[1:] == [
        ["ramole_k3", "26 [25, 27]", "–"],
        ["peft_arrow", "–", "47 [46, 48]"],
    ]
    assert shown.named("16 users at once")[1][1:] == ["31.0 [30.0, 32.0]", "15.0 [15.0, 15.0]"] + [
        "2.1"
    ]


def test_tables_are_real_ones(folder):
    html = everything(folder)
    shown = Tables(html)
    assert shown.open == [] and len(shown.tables) > 12
    assert all(caption for caption, _ in shown.tables)
    assert {scope for tag, scope in shown.scopes if tag == "th"} == {"col", "row", "rowgroup"}
    assert {scope for tag, scope in shown.scopes if tag == "td"} == {None}
    for _, rows in shown.tables:  # a group's title spans the rest of its row
        assert {len(row) for row in rows[1:]} - {1} == {len(rows[0])}
    boxes = re.findall(
        r'<div class="rm-scroll" tabindex="0" role="region" aria-label="[^"]+"', html
    )
    assert len(boxes) == len(shown.tables)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", [None, "", "{", "[1]", "{}", '{"cells": {"iid": 7}}', "NaN"])
def test_a_missing_broken_or_older_file_is_a_sentence_with_its_command(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    html = everything(folder)
    if name == "many_users.json":
        assert "users at once" not in html
        return
    (box,) = re.findall(r'<div class="rm-unmeasured"><p>(.*?)</p>.*?<code>(.*?)</code>', html)
    assert box[0].startswith("Not measured yet") and f"results/{name}" in box[0]
    assert ("broken, older" in box[0]) == (content is not None)
    assert box[1] == COMMANDS[name]


def test_nothing_measured_at_all(tmp_path):
    html = everything(tmp_path)
    assert html.count("Not measured yet") == 12 and "<table" not in html
    assert html.count("not measured yet</span>") == 7, "a tile each"
    assert "Nothing is measured yet" in html


def test_junk_anywhere_in_a_file_breaks_nothing(folder):
    random.seed(3)
    junk = [None, True, -7, 1e999, "", EVIL, [], [[]], {}, {"mean": "x"}, {"mean": 1, "low": None}]
    originals = {name: make() for name, make in FILES.items()}
    places = {name: list(_places(raw)) for name, raw in originals.items()}
    assert sum(map(len, places.values())) > 400
    for name, raw in originals.items():
        for place in random.sample(places[name], min(12, len(places[name]))):
            spoilt = copy.deepcopy(raw)
            node = spoilt
            for step in place[:-1]:
                node = node[step]
            node[place[-1]] = random.choice(junk)
            (folder / name).write_text(json.dumps(spoilt))
            os.utime(folder / name, ns=(0, random.randrange(10**18)))
            html = everything(folder, pictures=name == "evaluation.json")
            assert Tables(html).open == [], (name, place)
        (folder / name).write_text(json.dumps(raw))


def _places(node, path=()):
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def test_no_word_of_a_file_is_markup(folder):
    for name, make in FILES.items():
        (folder / name).write_text(_evil(make()))
    html = everything(folder)
    assert "&lt;img" in html
    assert "<img" not in html and "${" not in html and "{{" not in html


def _evil(raw) -> str:
    """The file with every string, names included, made into markup that stays different."""
    words = json.dumps(raw)
    kept = {"mean", "low", "high", "interval", "cells", "by_task", "methods", "settings", "rows"}
    kept |= {"summary", "plain", "merged", "top1", "adapters", "scores", "adapter", "aims", "parts"}
    kept |= {"what", "measured", "peers", "facts", "system", "batch", "name", "method", "rival"}
    kept |= {"differences", "shipped", "untuned", "tasks", "domain", "gain_over", "base", "group"}

    def spoil(match: re.Match) -> str:
        word = match[1]
        return match[0] if word in kept else json.dumps(f"{word}<img>${{x}}{{{{y}}}}")

    return re.sub(r'"((?:[^"\\]|\\.)*)"', spoil, words)


def test_a_file_is_read_again_only_when_it_has_changed(folder, monkeypatch):
    path, reads = folder / "speed.json", []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda p, **how: reads.append(p.name) or real(p, **how))
    load(folder, "speed.json")
    load(folder, "speed.json")
    assert reads == ["speed.json"]
    path.write_text(json.dumps({"command": "another"}))
    assert load(folder, "speed.json") == {"command": "another"}
    assert reads == ["speed.json"] * 2


UI = SimpleNamespace(top="top", rest="rest", chosen="chosen", setting="setting")
UI.plot, UI.ahead, UI.by_task = "plot", "ahead", "by_task"


def test_the_tab_opens_with_the_first_setting(folder):
    drawn = results_updates.opened(UI, folder)
    assert "ramole_plus" in drawn["top"] and "arc_easy" in drawn["rest"]
    assert [value for _, value in drawn["setting"].choices] == ["iid", "ood", "crowded"]
    assert drawn["setting"].value == "iid" and "IID" in drawn["by_task"]
    assert drawn["chosen"].visible and drawn["setting"].visible


def test_without_an_evaluation_there_is_nothing_to_choose(folder):
    (folder / "evaluation.json").unlink()
    drawn = results_updates.opened(UI, folder)
    assert "Not measured yet" in drawn["top"] and not drawn["chosen"].visible
    assert "arc_easy" in drawn["rest"] and "plot" not in drawn


def test_the_stamp_changes_with_any_file(folder):
    stamps = {stamp(folder)}
    for number, name in enumerate(COMMANDS):
        (folder / name).write_text(" " * number)
        stamps.add(stamp(folder))
    assert len(stamps) == len(COMMANDS) + 1
    assert stamp(folder) in stamps, "and with nothing else"


def test_another_setting_is_drawn_and_an_unknown_one_is_not(folder):
    assert "OOD" in results_updates.closer(UI, folder, "ood")["by_task"]
    for wrong in (None, "", "elsewhere", ["iid"]):
        assert "by_task" not in results_updates.closer(UI, folder, wrong)


def test_the_headline_says_in_plain_words_what_an_adapter_is_worth(folder):
    found, _ = evaluation(folder)
    assert headline(found) == (
        "The same small model: 11 points alone, 61 with an adapter that fits, 36 when that one is "
        "hidden"
    )
    assert [round(span.mean, 1) for _, span, _ in bars_of(found)] == [11.3, 61.2, 36.4, 66.6]
    html = short_html(found)
    assert "Of 2 aims that were set before measuring, 1 were reached and 1 not." in html
    assert (
        "3 tasks (100 rows a task, test split), from 0" in html
        and "IID" not in html
        and "OOD" not in html
    )


def test_the_headline_names_a_simpler_method_that_is_ahead(folder):
    raw = written()
    raw["cells"]["ood"]["mixture"]["mean"] = 40.0
    html = short_html(evaluation_of(raw))
    assert "When it is hidden, another method, mixture, is ahead with 40; ramole_plus" in html


def test_every_tile_leads_to_a_section_that_is_there(folder):
    html = everything(folder)
    led = re.findall(r'href="#results-([a-z]+)"', html)
    assert len(led) == 8 and set(led) - {"choice"} == set(
        re.findall(r'<details class="rm-results rm-fold" id="results-([a-z]+)"', html)
    )


def test_a_failure_nobody_thought_of_is_a_sentence(folder, monkeypatch, caplog):
    monkeypatch.setattr(results_updates, "glance_html", lambda *_: 1 / 0)
    drawn = results_updates.opened(UI, folder)
    assert "Something went wrong" in drawn["top"] and "arc_easy" in drawn["rest"]
    assert "ZeroDivisionError" in caplog.text


def test_an_interval_is_drawn_where_it_lies():
    drawn = whisker(Span(50.0, 40.0, 80.0), Scale(0, 200, mark=100))
    assert "left:20.0%;width:20.0%" in drawn and 'class="dot" style="left:25.0%' in drawn
    assert 'class="mark" style="left:50.0%' in drawn
    assert spoken(Span(-1.25, -2.0, 3.0), signed=True).count("−") == 2


@pytest.mark.parametrize(
    ("raw", "span"),
    [
        ({"mean": 1, "low": 0, "high": 2}, Span(1, 0, 2)),
        ({"mean": 1, "interval": [0, 2]}, Span(1, 0, 2)),
        ({"median": 1, "min": 0, "max": 2}, Span(1, 0, 2)),
        ({"mean": 1, "low": 0}, Span(1)),
        (4, Span(4)),
        (True, None),
        (float("nan"), None),
        ({"low": 0, "high": 2}, None),
    ],
)
def test_a_span_is_read_from_every_form_that_files_have(raw, span):
    assert span_of(raw) == span


def test_a_command_is_there_to_copy():
    assert command_html("") == ""
    shown = command_html("python -m a --b '<c>'")
    assert "python -m a --b &#x27;&lt;c&gt;&#x27;</code>" in shown and 'class="rm-copy"' in shown


def test_the_repository_s_own_files_are_all_read():
    html, read = everything(RESULTS), 0
    for name in COMMANDS:
        raw = load(RESULTS, name)
        if not isinstance(raw, Unmeasured) and {"command", "adapters"} & raw.keys():  # finished
            read += 1
            assert f"results/{name} is broken" not in html
    assert read >= 4 and Tables(html).open == []


def generator():
    """The module `docs/readme.py`, which is no package's."""
    spec = importlib.util.spec_from_file_location("readme", REPOSITORY / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_drawn_from_the_evaluation_where_it_is_there(folder, monkeypatch):
    readme = generator()
    monkeypatch.setattr(readme, "REPOSITORY", folder.parent)
    lines = readme.measured().splitlines()
    assert lines[0].startswith("3 tasks, 100 rows a task, test split, k = 3, on the base model")
    assert "| method | IID | OOD | crowded |" in lines
    assert "| `ramole` | 57.4 [54, 60] | 34.2 [31, 37] | 53.0 [50, 56] |" in lines
    assert "| `ramole_plus` | **61.2 [58, 64]** | **36.4 [33, 39]** | **58.8 [56, 62]** |" in lines
    assert "| `selection` | 63.5 [60, 66] | 24.9 [22, 28] | 58.1 [55, 61] |" in lines
    assert "| the right adapter alone | 66.6 [64, 70] |  |  |" in lines
    assert "- IID, beside perfect: aim 93 %, measured 91 %: **not reached**." in lines
    assert "- on a GPU: aim 2 points, measured nothing yet: not known yet." in lines
    (found,) = [line for line in lines if line.startswith("The right adapter, in percent")]
    assert "IID: found first 93.0 [90, 96], among the first 3 98.0 [97, 99]." in found
    assert lines[-2] == "python -m ramole_core evaluate --data data"


def test_readme_says_how_to_measure_what_is_not_there(folder, monkeypatch):
    readme = generator()
    (folder / "evaluation.json").write_text("{ broken")
    monkeypatch.setattr(readme, "REPOSITORY", folder.parent)
    assert COMMANDS["evaluation.json"] in readme.measured().splitlines()
