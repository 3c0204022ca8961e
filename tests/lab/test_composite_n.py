"""Several questions in one prompt: sets, the cut of an answer, who wrote which part."""

from dataclasses import replace

import numpy as np
import pytest

from lab.evaluation.cells import Cells
from lab.evaluation.composite_n import (
    Writing,
    cut,
    draw_sets,
    make_composite_n,
    score_parts,
    short,
)
from lab.evaluation.evaluate import Rows
from lab.evaluation.report import make_situation_table
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situations import Crowd
from ramole_core.errors import RamoleError
from ramole_core.request import Trace
from ramole_core.training.rows import Row
from tests.support.fake_answers import AnsweringRamole

NAMES = ("ant", "bee", "cat", "dog")
TASKS = [Rows(n, "", "em", tuple(Row(f"{n} {i}?", f"{n}{i}") for i in range(5))) for n in NAMES]
SYSTEMS = ("meteora", "mixture", "base")


class Traced(AnsweringRamole):
    """Answers the first question rightly and the second wrongly; `meteora` lets the pool's first
    adapter lead the first five tokens of an answer, and then the right one the second part."""

    def _answer(self, request):
        names = [] if request.method == "base" else list(request.adapters or NAMES)
        right = request.prompt.rpartition("number:\n\n")[2].split("\n\n")
        words = [right[0].replace(" ", "").rstrip("?"), "no"]
        tokens = ["1", ". ", words[0], "\n", "2", ". ", "n", "o"]
        ids = list(range(3 + len(tokens)))
        told = np.zeros((len(ids), 2, 3, len(names)), np.float16)
        for n in range(len(tokens)):
            if names:
                lead = (
                    names.index(right[1].split()[0]) if n > 4 and request.method == "meteora" else 0
                )
                told[2 + n, ..., lead] = 0.7
        trace = Trace(
            ["", "", "", *tokens], ids, 3, names, [0, 1], ["q", "k", "v"], told, told, told > -1
        )
        plain = super()._answer(replace(request, method="base"))
        return replace(plain, text="".join(tokens), adapters=names, trace=trace)


def situation_of(ramole, **changes):
    writing = Writing(ramole, dict.fromkeys(NAMES, "em"), 3, 5)
    rows = short(TASKS)
    return make_composite_n(writing, rows, rows, n=2, sets=6, systems=SYSTEMS, **changes)


def test_sets_have_different_tasks_each_about_equally_often():
    sets = draw_sets(NAMES, 3, 8, seed=1)
    assert all(len(set(one)) == 3 for one in sets)
    assert {name: sum(name in one for one in sets) for name in NAMES} == dict.fromkeys(NAMES, 6)
    assert draw_sets(NAMES, 3, 8, seed=1) == sets != draw_sets(NAMES, 3, 8, seed=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1. red\n2. blue", ["red", "blue"]),
        ("1) red\nmore\n 2: blue\n3. green\n", ["red\nmore", "blue\n3. green"]),
        ("red\n\nblue\ngreen", ["red", "blue\ngreen"]),  # no numbers: by line
        ("1. red", ["red", ""]),
        ("2. red\n1. blue", ["blue", ""]),  # in turn
        ("", ["", ""]),
    ],
)
def test_an_answer_is_cut_at_its_numbers(text, parts):
    assert [text[low:high].strip() for low, high in cut(text, 2)] == parts


def test_of_an_answer_the_first_line_counts_by_the_metric_of_its_task():
    metrics = {"ant": "em", "bee": "rouge"}
    parts = [" red\nmore", "blue sky"]
    assert score_parts(parts, ["red", "blue sky"], ("ant", "bee"), metrics) == [100, 100]
    assert score_parts(parts, ["more", "blue"], ("ant", "bee"), metrics)[0] == 0


def test_each_part_is_scored_and_whose_tokens_it_has_is_counted(tmp_path):
    situation = situation_of(Traced(Crowd(NAMES, ())))
    assert situation.count == 6 and situation.unit == "set"
    cells = Cells(tmp_path, {})
    run_situations([situation], cells, systems=SYSTEMS)
    table = make_situation_table(situation, cells, systems=SYSTEMS)["systems"]
    for system in SYSTEMS:
        assert table[system]["score"]["mean"] == table[system]["lenient"]["mean"] == 50
        assert table[system]["lenient 1"]["mean"] == 100 and table[system]["written"]["mean"] == 100
    assert "leads" not in table["base"] and table["meteora"]["found"]["mean"] == 100
    assert table["meteora"]["leads 2"]["mean"] == 100, "all tokens of the second part"
    first = [unit.split()[1].rstrip(",") == NAMES[0] for unit in situation.groups]
    second = [unit.split()[2] == NAMES[0] for unit in situation.groups]
    assert table["meteora"]["leads 1"]["mean"] == pytest.approx(100 * np.mean(first), abs=0.01)
    assert table["mixture"]["leads 2"]["mean"] == pytest.approx(100 * np.mean(second), abs=0.01)
    asked = len(situation.measure.__self__.ramole.asked)
    run_situations([situation], cells, systems=SYSTEMS)
    assert len(situation.measure.__self__.ramole.asked) == asked, "the cells are there"


def test_who_is_named_and_what_cannot_be_asked():
    ramole = Traced(Crowd(NAMES, ()))
    question = next(iter(situation_of(ramole, hidden=("copy",)).groups.values()))[0]
    assert question.prompt.count("Example") == 2 and question.prompt.count("?") == 6
    writing = Writing(ramole, {}, 3, 5, named=True)
    assert writing.request("mixture", question).adapters == question.right
    asked = replace(writing, named=False).request("meteora@top=1", question)
    assert (asked.exclude, asked.options, asked.max_new_tokens) == (("copy",), {"top": 1}, 10)
    with pytest.raises(RamoleError, match="5 questions .* 4 tasks have short rows"):
        rows = short(TASKS)
        make_composite_n(writing, rows, rows, n=5, sets=1, systems=SYSTEMS)
