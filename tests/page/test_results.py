"""The tab Results without a browser: files in every state, tables, marks, commands, the picture."""

import copy
import json
import os
import random
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.core.test_house import generator
from tests.support.results_page import EVIL, FILES, METHODS, evaluation as written, write_results
from ui.results import files, router, tab
from ui.results.answers import blocks, by_task, differences
from ui.results.files import COMMANDS, load, stamp
from ui.results.html import html, whisker
from ui.results.markdown import markdown
from ui.results.scores import (
    FURTHER,
    ON_DEV,
    SEVERAL,
    TESTED,
    Evaluation,
    evaluation,
    evaluation_of,
)
from ui.results.short import bars_of, fails, own_words, short_html
from ui.results.speed import CPUS, machines_of, rates
from ui.results.tab import scores_figure
from ui.results.tables import Column, Fold, Table, spoken
from ui.results.values import Span, span_of, text

WAYS = {"base": 4.5, "whole": 11.6, "parts": 59.6, "turns": 70.0}
OWN_WORDS = {
    "what": "own words",
    "unit": "adapter",
    "systems": {"mixture": {"right": {"mean": 91.5, "low": 88.0, "high": 95.0}}},
}
OPTIONAL = {
    FURTHER: {"command": "evaluate Y", "situations": {"phrased": OWN_WORDS}},
    SEVERAL: {
        "command": "parts_table X",
        "composite-2": {way: {"mean": mean, "low": 1.0, "high": 99.0} for way, mean in WAYS.items()}
        | {"right_cut": {"mean": 62.4, "low": 47.5, "high": 77.5}},
        "ordinary": {"prompts": 4150, "cut": {"mean": 0.12}},
    },
}
"""Files of which nothing is said where they are missing."""


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_results(tmp_path / "results")


class Tables(HTMLParser):
    """Every table as (caption, rows of cell texts), and each cell's tag with its scope."""

    def __init__(self, page: str):
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.scopes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

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
    parts = [tab.top_html(folder), tab.rest_html(folder)]
    parts += map(html, router.blocks(folder))  # in docs alone
    found = evaluation(folder)
    for setting in found.settings if isinstance(found, Evaluation) else ():
        parts += map(html, [*differences(found, setting), *by_task(found, setting)])
        if pictures:
            scores_figure(found, setting)
    return "".join(parts)


def change(folder: Path, name: str, **entries) -> dict:
    """Write other entries into a file, and return all of them."""
    raw = (FILES[name]() if name in FILES else {}) | entries
    (folder / name).write_text(json.dumps(raw))
    return raw


EXPECTED = """
Mean score of each method
  method | its adapter is there | its adapter is hidden | crowded
  ramole_plus | 61.2 [58.2, 64.2] (the best)
  ramole | 57.4 [54.4, 60.4] | 34.2 [31.2, 37.2] | 53.0 [50.0, 56.0]
  selection | 63.5 [60.5, 66.5]
  perfect | 66.6 [63.6, 69.6] | –
Lenient scores
  method | its adapter is there
  ramole | 59.5 [56.5, 62.5]
  base | 20.2 [17.2, 23.2]
Tasks whose adapters the router was never trained on
  method | its adapter is hidden
  ramole | 31.5 [28.5, 34.5]
Differences over the same rows, its adapter is there
  minus mixture | +9.1 [+7.1, +11.1] | clearly ahead
  minus selection | −2.3 [−3.3, −1.3] | clearly behind
Differences over the same rows, its adapter is hidden
  minus mixture | +4.7 [−0.3, +9.7] | no clear difference
phrased: own words
  mixture | 91.5 [88.0, 95.0]
Several tasks in one prompt
  asked | 2 tasks
  cut into its parts, the default | 59.6 [1.0, 99.0]
As published, on larger bases
  perfect selection | 55.4 | –
  RAMoLE | 51.8 | 47.7
switch: chats of two turns
  method | score | left to the base, % | odd | way from mixture to perfect, %
  mixture | 30.0 [27.0, 33.0] | 0.0 [0.0, 0.0] | – | –
  ramole_plus | 44.0 [41.0, 47.0] | 1.0 [0.0, 2.0] | 7.0 | 91.0 [88.0, 94.0]
open: everyday prompts
  unseen families
  ramole_plus | 98.0 [95.0, 101.0]
All methods
  method | its adapter is there | minus ramole_plus | its adapter is hidden | tokens/s alone
  ramole | 57.4 [54.4, 60.4] | +2.5 [−4.0, +9.0] | 34.2 [31.2, 37.2] | 31.4 [30.0, 33.0] | 180.0
  mixture | 52.1 [49.1, 55.1] | – | 31.7 [28.7, 34.7] | – | – | – | –
two tasks in one prompt, mixture
  effect | 80.0 [77.0, 83.0] | 90.0 [87.0, 93.0] | 92.0 [89.0, 95.0]
  contribution | 60.0 [57.0, 63.0] | – | –
another token comes where this adapter is switched off, %
  mixture | 50.0 [47.0, 53.0] | 20.0 [17.0, 23.0] | 10.0 [7.0, 13.0]
composite-2: 2 questions of 2 tasks
  meteora | 31.0 [28.0, 34.0] | 99.0 [96.0, 102.0]
CA-LoRA, the base rounded to 3 bits
  uncompressed base, its adapter | 40.0 [37.0, 43.0] | +2.0 [+1.5, +2.5] | 1.250 [1.125, 1.375]
  ca_lora | 42.0 [39.0, 45.0] | – | 3.250 [3.125, 3.375]
CA-LoRA, the base NF4, the control
  the same adapter | 41.0 [38.0, 44.0] | +1.0 [+0.5, +1.5]
LLaVA-MoLE, trained on a mixture of a, b
  one LoRA | 40.0 [37.0, 43.0]
  llava_mole | 42.0 [39.0, 45.0] | –
By the paper's protocol: 48 LoRAs, 2371 prompts
  retriever | top-1 | top-3 | top-5 | top-8 | top-1, twins merged | top-1, interval over tasks
  untuned | 61.0 [59.0, 63.0] | 63.0 [61.0, 65.0]
  tasks it never saw
  untuned MiniLM | 51.7 | 73.1 | 80.5 | 87.2 | – | –
The shipped retriever
  unseen tasks of the data, 77 prompts
  shipped | 86.0 [84.0, 88.0]
For the prompts of the first section
  its adapter is there | 93.0 [90.0, 96.0]
Sample adapters
  sst2 | em | 50 | 10.0 | 50.0 | 21.0 | 44.0 | +34.0 [+31.0, +37.0]
  copa | em | 50 | 10.0 | – | 21.0 | 44.0 | +1.0 [−2.0, +4.0]
Gates of RouterLoRA
  trained on | measured | median of seeds, least, most | minus equal | minus random
  IID: the right adapter may be found, tasks it saw
  one gate | 52.0 [47.0, 57.0] | 52.0 [51.0, 53.0] | +5.0 [+3.0, +7.0] | +1.0 [−1.0, +3.0]
  another | 40.0 [35.0, 45.0] | – | −7.0 [−9.0, −5.0]
What each piece of ramole_plus is worth
  OOD: the right adapter is hidden
  all pieces | 45.0 [44.0, 46.0] | selection | +2.0 [+1.5, +2.5] | better
Ratios within one run
  decode, ramole_k3 / base, batch=1 | 0.71 [0.70, 0.80]
  decode, batch=8 | 26.8 [26.6, 27.1]
Tokens a second beside PEFT
  ramole_k3 | 26 [25, 27] | –
  peft_arrow | – | 47 [46, 48]
More adapters, same speed?
  cold
  5 | 5.0 [4.0, 6.0]
  2,000 | 5.0 [4.0, 6.0]
  real time
16 users at once
  people on the page, each in a browser of the same machine | 31.0 [30.0, 32.0]
What the running page costs
  first token, ramole, s | 0.25 [0.12, 0.50]
  memory at the end, MiB | 1,234
"""
"""By the beginning of a caption, the beginnings of some of its rows, in their order."""


@pytest.fixture(scope="module")
def all_files(tmp_path_factory) -> Path:
    """Those that need not be there, too."""
    folder = write_results(tmp_path_factory.mktemp("shown") / "results")
    for name, raw in OPTIONAL.items():
        (folder / name).write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def page_of_all(all_files) -> str:
    return everything(all_files)


@pytest.fixture(scope="module")
def tables_shown(page_of_all) -> Tables:
    return Tables(page_of_all)


@pytest.mark.parametrize("table", re.split(r"\n(?=\S)", EXPECTED.strip()))
def test_a_table_has_the_numbers_of_its_file(tables_shown, table):
    caption, *rows = table.split("\n  ")
    shown = iter(tables_shown.named(caption))
    for row in rows:
        assert any(" | ".join(cells).startswith(row) for cells in shown), (caption, row)


def test_tables_are_real_ones(page_of_all, tables_shown):
    assert tables_shown.open == [] and len(tables_shown.tables) > 12
    assert all(caption for caption, _ in tables_shown.tables)
    assert {scope for tag, scope in tables_shown.scopes if tag == "th"} == {
        "col",
        "row",
        "rowgroup",
    }
    assert {scope for tag, scope in tables_shown.scopes if tag == "td"} == {None}
    for _, rows in tables_shown.tables:  # a group's title spans the rest of its row
        assert {len(row) for row in rows[1:]} - {1} == {len(rows[0])}
    box = r'<div class="rm-scroll" tabindex="0" role="region" aria-label="[^"]+"'
    assert len(re.findall(box, page_of_all)) == len(tables_shown.tables)


@pytest.mark.parametrize(
    "sentence",
    [
        "Cut between their tasks: 62 % of those with 2 tasks.",
        "Of 4150 prompts with one task 0.1 % were cut.",
        "in 4 bits, on 2 cores of imagined as well with AMX",
        "The same small model: 11 points alone, 61 with an adapter that fits, 36 when that one is",
        "3 tasks, 100 rows each, from 0",
    ],
)
def test_a_sentence_has_the_numbers_of_its_file(page_of_all, sentence):
    assert sentence in page_of_all


def test_commands_are_in_docs_and_not_on_the_page(all_files, page_of_all):
    docs = markdown(blocks(all_files))
    for command in ("evaluate Y", "parts_table X"):
        assert command in docs and command not in tab.top_html(all_files) + tab.rest_html(all_files)
    assert "cannot be read" not in page_of_all, "a situation without a number has no table"


def tables_in(parts) -> list[Table]:
    inner = [one for part in parts for one in (part.blocks if isinstance(part, Fold) else [part])]
    return [one for one in inner if isinstance(one, Table)]


def test_page_and_docs_show_the_same_numbers(folder):
    for section in (tab.ANSWERS, *tab.REST):
        for table in tables_in(section.blocks(folder)):
            ((_, drawn),) = Tables(html(table)).tables
            lines = [line for line in markdown([table]).splitlines() if line.startswith("| ")][1:]
            drawn = [row for row in drawn[1:] if len(row) > 1]
            assert len(lines) == len(drawn) > 0
            for line, row in zip(lines, drawn, strict=True):
                for cell in (re.sub(r" \(the best\)|^–$", "", cell) for cell in row[1:]):
                    assert cell in line.replace("\\", ""), (table.caption, row)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", [None, "", "{", "[1]", "{}", '{"cells": {"iid": 7}}', "NaN"])
def test_a_missing_broken_or_older_file_is_a_sentence_with_its_command(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    page = everything(folder, pictures=name == "test2.json")
    (box,) = re.findall(r'<div class="rm-unmeasured"><p>(.*?)</p>.*?<code>(.*?)</code>', page)
    assert box[0].startswith("Not measured yet") and f"results/{name}" in box[0]
    assert ("broken, older" in box[0]) == (content is not None)
    assert box[1] == COMMANDS[name]
    if name == "test2.json":
        assert COMMANDS[name] in markdown(blocks(folder)).splitlines()
    if name.startswith("methods"):
        assert len(Tables(page).named("All methods")) > 2, "the half that is there"


def test_nothing_measured_at_all(tmp_path):
    page = everything(tmp_path)
    assert page.count("Not measured yet") == len(FILES) and "<table" not in page
    assert "Nothing is measured yet" in page


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
            page = everything(folder, pictures=name == "test2.json")
            assert Tables(page).open == [], (name, place)
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
    page = everything(folder)
    assert "&lt;img" in page
    assert "<img" not in page and "${" not in page and "{{" not in page
    text = "".join(markdown(s.blocks(folder)) for s in (tab.ANSWERS, *tab.REST))
    text = re.sub(r"```bash\n.*?```", "", text, flags=re.DOTALL)
    assert re.search(r"\\<img", text) and not re.search(r"(?<!\\)<img", text)


def _evil(raw) -> str:
    """The file with every string, names included, made into markup that stays different."""
    words = json.dumps(raw)
    kept = {"mean", "low", "high", "interval", "cells", "by_task", "methods", "settings", "rows"}
    kept |= {"summary", "plain", "merged", "top1", "adapters", "scores", "adapter", "parts"}
    kept |= {"what", "measured", "peers", "facts", "system", "batch", "name", "method", "rival"}
    kept |= {"differences", "shipped", "untuned", "tasks", "domain", "gain_over", "base", "group"}
    kept |= {"ratios", "situations", "systems"}

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


def test_the_stamp_changes_with_any_file(folder):
    stamps = {stamp(folder)}
    for number, name in enumerate(COMMANDS):
        (folder / name).write_text(" " * number)
        stamps.add(stamp(folder))
    assert len(stamps) == len(COMMANDS) + 1
    assert stamp(folder) in stamps, "and with nothing else"


# --- what ships, and what was tested --------------------------------------------------------------


def test_the_best_mixing_is_looked_for_in_each_setting():
    raw = written()
    raw["cells"]["ood"]["mixture"]["mean"] = 40.0
    found = evaluation_of(raw)
    best = [found.best(name) for name in found.settings]
    assert best == ["ramole_plus", "mixture", "ramole_plus"]
    assert "When it is hidden, another method, mixture, is ahead with 40; ramole_plus" in " ".join(
        fails(found)
    )


def test_the_test_stands_first_and_dev_rows_folded_below(folder):
    assert "choices were made on" not in everything(folder), "there is one table alone"
    raw = written()
    raw["cells"]["iid"]["mixture"]["mean"] = 33.3
    raw |= {"skipped": 60, "split": "dev", "command": "python -m ramole_core evaluate X"}
    change(folder, ON_DEV, **raw)
    shown, folded = markdown(blocks(folder)).split("<details><summary>The same on dev rows")
    assert "| `mixture` | 52.1" in shown and "| `mixture` | 33.3" not in shown
    assert "| `mixture` | 33.3" in folded and "evaluate X" in folded
    (folder / TESTED).unlink()
    shown = markdown(blocks(folder))
    assert "| `mixture` | 33.3" in shown and "The same on dev rows" not in shown
    assert "<dt>skipped</dt><dd>60</dd>" in everything(folder)


def test_differences_in_the_main_table_have_their_interval_over_tasks(folder):
    gap = {"method": "ramole_plus", "rival": "mixture", "mean": 9.1, "low": 8.0, "high": 10.0}
    gap |= {"task_low": -1.5, "task_high": 20.0}
    change(folder, TESTED, differences={"iid": [gap]})
    assert evaluation(folder).by_tasks("mixture") == "", "not measured in each setting"
    change(folder, TESTED, differences={name: [gap] for name in ("iid", "ood", "crowded")})
    said = evaluation(folder).by_tasks("mixture", "selection")
    assert said.endswith("over tasks: `mixture` " + ", ".join(["−9.1 [−20.0, +1.5]"] * 3) + ".")
    head, *rows = Tables(everything(folder)).named("Mean score of each method, by setting")
    assert head[2] == "minus ramole_plus"
    assert [row[2] for row in rows if row[0] == "mixture"] == ["−9.1 [−20.0, +1.5]"]


def test_where_it_fails_says_what_people_s_own_words_get(folder):
    assert own_words(folder) == []
    shares = {"among": {"mean": 86.1}, "leads": {"mean": 79.8}, "base": {"mean": 12.2}}
    change(folder, "second_half.json", phrased={"ramole_plus": shares})
    change(folder, "usable.json", judged={"answers_of_use": 26, "of": 69})
    found, answers = own_words(folder)
    assert "86 % have the adapter that they ask for among the three that answer, 80 % in" in found
    assert answers == "Of 69 answers to such prompts, readers found 26 of use."
    assert found in short_html(folder).replace("&#x27;", "'") and answers in short_html(folder)
    (folder / "usable.json").write_text("{")
    assert own_words(folder) == [found]


def test_the_answers_say_what_their_retriever_was_tuned_on(folder):
    assert "The retriever was tuned on" not in everything(folder), "the file does not say it"
    for known, words in ((["sst2"], "1 of"), (["sst2", "copa", "e2e_nlg"], "all")):
        change(folder, "test2.json", retriever_tuned_on=known)
        words = f"The retriever was tuned on other rows of {words} these 3 tasks."
        assert words in everything(folder)


def test_readme_shows_what_ships_where_that_was_measured(folder, monkeypatch):
    readme = generator()
    monkeypatch.setattr(readme, "REPOSITORY", folder.parent)
    change(folder, TESTED, split="test2")
    lines = readme.short().splitlines()
    assert lines[0] == "Test rows, asked once, of the system as it ships."
    assert lines[6].startswith("| `ramole_plus` | **61.2 [58.2, 64.2]** | **36.4 [33.4, 39.4]** |")
    assert "Measured 2026-11-25: 3 tasks, 100 rows each, nf4; the" in lines[-1]
    change(folder, ON_DEV, **written() | {"split": "dev"})
    assert readme.short().splitlines() == lines
    (folder / TESTED).write_text("{ broken")
    assert COMMANDS[TESTED] in readme.short().splitlines()
    (folder / TESTED).unlink()
    assert readme.short().startswith("Dev rows, looked at")


# --- one setting in detail ------------------------------------------------------------------------

UI = SimpleNamespace(top="top", rest="rest", chosen="chosen", setting="setting")
UI.plot, UI.ahead, UI.by_task = "plot", "ahead", "by_task"
HIDDEN = "Score by task, its adapter is hidden"


def test_tasks_are_grouped_by_domain_and_follow_the_setting(folder):
    rows = Tables(tab.closer(UI, folder, "ood")["by_task"]).named(HIDDEN)
    assert rows[0] == ["task", "metric", *(name for name in METHODS if name != "perfect")]
    named = [row[0] for row in rows[1:]]
    assert named == ["sentiment", "sst2", "reasoning", "copa", EVIL, "e2e_nlg"]
    assert rows[2][1:4] == ["em", "29 (the best)", "27"] and rows[6][2] == "43 (the best)"
    assert "perfect" in Tables(tab.closer(UI, folder, "iid")["by_task"]).tables[0][1][0]


def test_the_picture_has_the_numbers_of_the_table(folder):
    found = evaluation(folder)
    figure = scores_figure(found, "iid")
    drawn = {trace.y[0]: trace for trace in figure.data}
    assert list(drawn) == list(METHODS)
    mixture = drawn["mixture"]
    assert mixture.x[0] == 52.1
    assert mixture.error_x.array[0] == pytest.approx(3) == mixture.error_x.arrayminus[0]
    assert tuple(figure.layout.yaxis.categoryarray) == tuple(METHODS)[::-1], "the first is on top"
    assert drawn["base"].marker.symbol == "circle-open" != mixture.marker.symbol
    assert len(scores_figure(found, "ood").data) == len(METHODS) - 1
    inks = {name: trace.marker.color for name, trace in drawn.items()}
    assert len({inks[name] for name in ("ramole_plus", "ramole", "mixture", "selection")}) == 4
    assert inks["base"] == inks["perfect"] == inks["uniform_router"] != inks["ramole"]


def test_the_tab_opens_with_the_first_setting_and_without_an_evaluation_with_none(folder):
    drawn = tab.opened(UI, folder)
    assert "ramole_<wbr>plus" in drawn["top"] and "arc_easy" in drawn["rest"]
    assert [value for _, value in drawn["setting"].choices] == ["iid", "ood", "crowded"]
    assert drawn["setting"].value == "iid" and "its adapter is there" in drawn["by_task"]
    assert drawn["chosen"].visible and drawn["setting"].visible
    for wrong in (None, "", "elsewhere", ["iid"]):
        assert "by_task" not in tab.closer(UI, folder, wrong)
    (folder / TESTED).unlink()
    drawn = tab.opened(UI, folder)
    assert "Not measured yet" in drawn["top"] and not drawn["chosen"].visible
    assert "arc_easy" in drawn["rest"] and "plot" not in drawn


def test_a_failure_nobody_thought_of_is_a_sentence(folder, monkeypatch, caplog):
    monkeypatch.setattr(tab, "short_html", lambda *_: 1 / 0)
    drawn = tab.opened(UI, folder)
    assert "Something went wrong" in drawn["top"] and "arc_easy" in drawn["rest"]
    assert "ZeroDivisionError" in caplog.text


# --- the first screen -----------------------------------------------------------------------------


def test_each_task_stands_with_and_without_its_adapter_and_what_fails_is_said(folder):
    bars = [round(span.mean, 1) for _, span, _ in bars_of(evaluation(folder))]
    assert bars == [11.3, 61.2, 36.4, 66.6]
    rows = Tables(short_html(folder)).named("Each task")
    assert rows[0] == ["task", "base alone", "its adapter is there", "its adapter is hidden"]
    assert rows[1:][0][1:] == ["4", "54", "29"] and len(rows) == 4
    raw = written()
    plus = [raw["cells"][setting]["ramole_plus"]["by_task"] for setting in ("iid", "ood")]
    plus[0]["copa"], plus[1]["sst2"] = 12, -1.5
    change(folder, TESTED, cells=raw["cells"])
    said = short_html(folder)
    assert "Poor even where its adapter is there: copa 12." in said
    assert "Worse than the base where its adapter is hidden: sst2 -2, base 4." in said


@pytest.mark.parametrize(("better", "words"), [("lower", "worse"), ("higher", "better")])
def test_a_piece_is_judged_by_its_interval(folder, better, words):
    change(folder, "ablations.json", measure=f"a measure, {better} is better")
    rows = Tables(everything(folder)).named("What each piece of ramole_plus is worth")
    assert [row[-1] for row in rows if words in row] == [words]


def test_a_part_measured_on_another_machine_says_so(folder):
    one = {"cpu": "Slow One", "threads": 2, "dtype": "bfloat16", "quantization": "none"}
    parts: dict[str, dict] = {part: {"machine": one} for part in ("decode", "prefill")}
    parts["retrieval"] = {"machine": {**one, "cpu": "Fast One"}}
    where = "threads 2, dtype bfloat16"
    assert machines_of(change(folder, "speed.json", parts=parts)) == {
        f"cpu Slow One, {where}": ["decode", "prefill"],
        f"cpu Fast One, {where}": ["retrieval"],
    }
    assert "<dt>parts retrieval</dt><dd>cpu Fast One" in everything(folder)


def test_another_cpu_has_its_own_table_and_half_a_sentence(folder):
    assert rates(folder) == (
        "Tokens a second on 2 cores, three adapters mixed (int4), alone and 32 at once "
        "(llama.cpp's bare base): imagined as well with AMX 140 and 450 (250 and 560); "
        "imagined without bfloat16 140 and 450 (250 and 560)."
    )
    for name in CPUS:
        (folder / name).unlink()
    assert rates(folder) == ""


# --- numbers ------------------------------------------------------------------------------------


def test_an_interval_is_drawn_where_it_lies_and_a_whole_number_written_out():
    assert [text(one) for one in (1234567, 0.25, 4.0)] == ["1234567", "0.25", "4"]
    assert Span(2.0).judged("ahead", "behind") == "interval not measured"
    drawn = whisker(Span(50.0, 40.0, 80.0), (0, 200), 100)
    assert "left:20.0%;width:20.0%" in drawn and 'class="dot" style="left:25.0%' in drawn
    assert 'class="mark" style="left:50.0%' in drawn
    assert spoken(Span(-1.25, -2.0, 3.0), Column("", signed=True)) == ("−1.2", "[−2.0, +3.0]")


@pytest.mark.parametrize(
    ("raw", "span"),
    [
        ({"mean": 1, "low": 0, "high": 2}, Span(1, 0, 2)),
        ({"mean": 1, "interval": [0, 2]}, Span(1, 0, 2)),
        ({"median": 1, "min": 0, "max": 2}, Span(1, 0, 2)),
        ({"median": 1, "least": 0, "most": 2}, Span(1, 0, 2)),
        ({"mean": 1, "low": 0}, Span(1)),
        (4, Span(4)),
        (True, None),
        (float("nan"), None),
        ({"low": 0, "high": 2}, None),
    ],
)
def test_a_span_is_read_from_every_form_that_files_have(raw, span):
    assert span_of(raw) == span


def test_a_table_of_an_earlier_pool_says_so(tmp_path):
    """By the SHA-256 of the adapters that were asked; a file that names none says nothing."""
    manifest = tmp_path / "red" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"files": {"adapter_model.safetensors": {"sha256": "a1"}}}))
    said = partial(files.of_an_earlier_pool, pool=tmp_path)
    assert not said({"adapters": {"red": "a1"}}) and not said({}) and not said({"adapters": 21})
    assert said({"adapters": {"red": {"adapter_sha256": "b2"}}})
    assert said({"adapters": {"red": "b2"}}) and said({"adapters": {"red": "a1", "blue": "c3"}})
    told = files.made_of({"adapters": {"no such adapter": "b2"}}, "budget.json", {"k": "3"})
    assert told.facts == {"pool": files.EARLIER, "k": "3"}
