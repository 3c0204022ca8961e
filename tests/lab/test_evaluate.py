"""The evaluation: cells that survive a stop, tables that add up, and the command on a real pool."""

import fcntl
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.evaluation import command, further
from lab.evaluation.asking import EXAMPLES, Asker, judge_score
from lab.evaluation.cells import Cell, Cells
from lab.evaluation.evaluate import (
    Rows,
    draw_pairs,
    make_copied,
    make_row_situations,
    make_switch,
    make_unseen,
    read_rows,
)
from lab.evaluation.facts import own_facts, rows_digest
from lab.evaluation.further import (
    FAR_PART,
    FITTED,
    FURTHER,
    HELD_OUT,
    Material,
    fitted_half,
    make_chats,
    make_open,
    make_phrased,
    make_uploads,
)
from lab.evaluation.intervals import share_of_way
from lab.evaluation.questions import Found, Question, Situation
from lab.evaluation.report import make_situation_table, make_tables
from lab.evaluation.situation_run import Pace, run_situations
from lab.evaluation.situations import SITUATIONS, Crowd
from lab.evaluation.systems import (
    ORDER,
    RANDOM,
    Ask,
    describe,
    draw_weights,
    read_way,
    request_of,
)
from lab.harness import retrieval_facts
from ramole_core.cli import main
from ramole_core.errors import RamoleError
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.prompt_sets import Everyday, FollowUp, Phrased, Upload
from ramole_core.training.rows import Row
from tests.support.fake_answers import AnsweringRamole

TASKS = [
    Rows("ant", "insects", "em", tuple(Row(f"ant {n}?", "yes") for n in range(6))),
    Rows("bee", "insects", "em", tuple(Row(f"bee {n}?", "no") for n in range(4))),
]
CROWD = Crowd(samples=("ant", "bee", "cat"), distractors=("copy1-ant", "other-x"))
ASK = Ask(k=2, tokens=5)


def run_rows(ramole, cells, *, systems, situations, tasks=TASKS):
    made = make_row_situations(ramole, cells, CROWD, tasks=tasks, situations=situations, ask=ASK)
    for task in tasks:  # one at a time, so that a run can stop between two cells
        alone = [replace(one, groups={task.task: one.groups[task.task]}) for one in made]
        run_situations(alone, cells, systems=systems)


def cell(right, rows):
    """A cell whose first `right` answers are right."""
    scores = [100.0 * (n < right) for n in range(len(rows.rows))]
    return Cell(scores, scores, [["ant"]] * len(scores), 1.0)


def test_a_situation_hides_what_it_must():
    assert CROWD.excluded("crowded", "ant") == ()
    assert CROWD.excluded("iid", "ant") == ("copy1-ant", "other-x")
    assert CROWD.excluded("ood", "ant") == ("copy1-ant", "other-x", "ant")
    asked = request_of("mixture", "hi", own="ant", excluded=("ant",), ask=ASK)
    assert (asked.k, asked.exclude, asked.adapters) == (2, ("ant",), None)
    perfect = request_of("perfect", "hi", own="ant", excluded=("ant",), ask=ASK)
    assert perfect.adapters == ("ant",) and not perfect.exclude


def test_facts_decide_the_folder(tmp_path):
    first, again = Cells(tmp_path, {"router": "a"}), Cells(tmp_path, {"router": "a"})
    first.write("iid", "mixture", "ant", cell(3, TASKS[0]))
    assert again.read("iid", "mixture", "ant") == cell(3, TASKS[0])
    assert Cells(tmp_path, {"router": "b"}).read("iid", "mixture", "ant") is None
    # what decides one system's numbers alone leaves the other systems' cells as they are
    changed = {"ramole": {"weights": "ef"}}
    later = Cells(tmp_path, {"router": "a"}, lambda system: changed.get(system, {}))
    assert later.read("iid", "mixture", "ant") == first.read("iid", "mixture", "ant")
    assert not later.has("iid", "ramole", "ant")


def test_a_claimed_cell_is_left_to_its_owner_until_it_is_released(tmp_path):
    cells, other, name = Cells(tmp_path, {}), Cells(tmp_path, {}), ("iid", "mixture", "ant")
    assert cells.claim(*name)
    other.release()
    assert not other.claim(*name) and not cells.claim(*name)
    cells.release()
    assert other.claim(*name) and not cells.claim(*name)
    other.write(*name, cell(1, TASKS[0]))
    assert not cells.claim(*name) and not other.claim(*name)
    assert not list(cells.folder.glob("*/*/*.claim"))


@pytest.mark.parametrize("late", ["open", "flock"])
def test_a_cell_that_is_written_while_another_claims_it_is_not_made_again(
    tmp_path, monkeypatch, late
):
    cells, other, name = Cells(tmp_path, {}), Cells(tmp_path, {}), ("iid", "mixture", "ant")
    assert cells.claim(*name)
    where = {"open": (Path, "open"), "flock": (fcntl, "flock")}[late]
    real = getattr(*where)

    def written_first(*given, **named):
        monkeypatch.undo()
        cells.write(*name, cell(1, TASKS[0]))
        return real(*given, **named)

    monkeypatch.setattr(*where, written_first)
    assert not other.claim(*name)
    assert cells.has(*name) and not list(cells.folder.glob("*/*/*.claim"))


def test_a_stopped_run_goes_on_and_asks_nothing_twice(tmp_path):
    ramole, cells = AnsweringRamole(CROWD), Cells(tmp_path, {})
    shared = {
        "systems": ("base", "perfect", "selection", "mixture"),
        "situations": tuple(SITUATIONS),
    }
    ramole.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run_rows(ramole, cells, **shared)
    done = len(list(cells.folder.glob("*/*/*.json")))
    assert done == 4, "three were asked, and selection's answers were known"
    ramole.stop_after, ramole.batches = None, 0
    run_rows(ramole, cells, **shared)
    every = 2 * (2 + 2 * 3)
    assert len(list(cells.folder.glob("*/*/*.json"))) == every
    # IID selection found each row's own adapter, as `perfect` had: its answers were taken over
    assert ramole.batches < every - done
    iid, perfect = cells.read("iid", "selection", "ant"), cells.read("alone", "perfect", "ant")
    assert iid and perfect and iid.strict == perfect.strict
    ood = cells.read("ood", "selection", "ant")
    assert ood and all("ant" not in names for names in ood.adapters)
    ramole.batches = 0
    run_rows(ramole, cells, **shared)
    assert ramole.batches == 0


def test_a_method_of_its_own_pool_is_not_asked_again_in_a_crowd(tmp_path):
    ramole, cells = AnsweringRamole(CROWD), Cells(tmp_path, {})
    shared = {"situations": ("iid", "crowded")}
    run_rows(ramole, cells, systems=("meteora", "llava_mole"), **shared)
    assert ramole.batches == 2 * len(TASKS)
    crowded, iid = (cells.read(place, "meteora", "ant") for place in ("crowded", "iid"))
    assert replace(crowded, seconds=0.0) == replace(iid, seconds=0.0)
    run_rows(ramole, cells, systems=("mixture",), **shared)
    assert ramole.batches == 2 * len(TASKS) + 2 * len(TASKS)


def test_tables_add_up(tmp_path):
    cells = Cells(tmp_path, {})
    for task, right in zip(TASKS, (6, 3), strict=True):
        cells.write("alone", "perfect", task.task, cell(right, task))
        for situation in ("iid", "ood"):
            cells.write(situation, "selection", task.task, cell(right - 2, task))
            cells.write(situation, "mixture", task.task, cell(right - 3, task))
            cells.write(situation, "similarity", task.task, cell(right - 2, task))
            cells.write(situation, "ramole_plus", task.task, cell(right, task))
    tables = make_tables(
        cells,
        tasks=TASKS,
        systems=("perfect", "selection", "mixture", "similarity", "ramole_plus", "fusion"),
        situations=("iid", "ood"),
        trained_on=("ant",),
    )
    later = tables["later"]
    assert later["tasks"] == ["bee"] and later["cells"]["ood"]["ramole_plus"]["mean"] == 75.0
    assert {d["method"] for d in later["differences"]["ood"]} == {"ramole_plus"}
    got = tables["cells"]["ood"]
    assert got["ramole_plus"]["mean"] == 90.0 and got["selection"]["mean"] == 50.0
    assert got["ramole_plus"]["by_task"] == {"ant": 100.0, "bee": 75.0}
    assert got["selection"]["low"] < 50 < got["selection"]["high"]
    assert "fusion" not in got  # a cell that is missing leaves its system out
    told = {"tasks": TASKS, "systems": (), "situations": ()}
    assert "later" not in make_tables(cells, trained_on=["ant", "bee"], **told)
    gap = next(d for d in tables["differences"]["ood"] if d["rival"] == "mixture")
    assert gap["method"] == "ramole_plus" and gap["mean"] == 60.0 and 0 < gap["low"] < 60
    by_task = [  # of two tasks, every other draw takes one twice: the ends are the tasks themselves
        got["ramole_plus"]["by_task"][task] - got["mixture"]["by_task"][task]
        for task in ("ant", "bee")
    ]
    assert [gap["task_low"], gap["task_high"]] == sorted(by_task)
    assert tables["retrieval"]["iid"]["first"]["mean"] == 60.0  # all of ant's, none of bee's


def test_rows_that_are_left_to_the_base_are_counted(tmp_path):
    cells, ramole = Cells(tmp_path, {}), AnsweringRamole(CROWD)
    ramole.leaves = {"bee 1?", "bee 3?"}
    systems = ("base", "mixture", "ramole_plus")
    run_rows(ramole, cells, systems=systems, situations=("iid",))
    left = make_tables(cells, tasks=TASKS, systems=systems, situations=("iid",))["left"]["iid"]
    assert set(left) == {"ramole_plus"}, "the others do not abstain"
    assert left["ramole_plus"]["mean"] == 25.0, "none of ant's, half of bee's"


def test_rows_are_read_from_the_split_and_examples_are_dev_rows_that_are_not_asked(tmp_path):
    folder = tmp_path / "ant"
    folder.mkdir()
    for split in ("dev", "test2"):
        rows = [{"inputs": f"{split} {n}?", "targets": "b", "metric": "em"} for n in range(8)]
        text = "\n".join(json.dumps(row | {"domain": "insects"}) for row in rows)
        (folder / f"{split}.jsonl").write_text(text)
    (tested,) = read_rows(tmp_path, ["ant"], split="test2", count=3)
    assert (tested.domain, tested.metric) == ("insects", "em")
    assert [row.inputs for row in tested.rows] == ["test2 0?", "test2 1?", "test2 2?"]
    assert [row.inputs for row in tested.examples] == [f"dev {n}?" for n in range(EXAMPLES)]
    (first,) = read_rows(tmp_path, ["ant"], split="dev", count=3)
    (later,) = read_rows(tmp_path, ["ant"], split="dev", count=3, skip=7)
    assert first.examples == () and [row.inputs for row in later.rows] == ["dev 7?"]
    assert [row.inputs for row in later.examples] == [f"dev {n}?" for n in range(2, 7)]
    with pytest.raises(RamoleError, match="no rows after its first 8"):
        read_rows(tmp_path, ["ant"], split="dev", count=3, skip=8)
    (folder / "dev.jsonl").unlink()
    with pytest.raises(RamoleError, match=r"dev\.jsonl was not found"):
        read_rows(tmp_path, ["ant"], split="dev", count=3)


def test_rows_of_one_s_own_need_no_metric_and_a_bad_one_is_told(tmp_path):
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "dev.jsonl"
    file.write_text('{"inputs": "1?", "targets": "1"}\n\n{"inputs": "2?", "targets": "2"}\n')
    (found,) = read_rows(tmp_path, ["mine"], split="dev", count=5)
    assert (found.metric, [row.inputs for row in found.rows]) == ("rouge", ["1?", "2?"])
    file.write_text('{"inputs": "1?", "targets": "1"}\n{"inputs": "2?"}\n')
    with pytest.raises(RamoleError, match="line 2 is not a row"):
        read_rows(tmp_path, ["mine"], split="dev", count=5)
    for bad in ("null", '["a"]', "true", "[" * 99_999):
        file.write_text(f'{{"inputs": "1?", "targets": {bad}}}')
        with pytest.raises(RamoleError, match="line 1 is not a row"):
            read_rows(tmp_path, ["mine"], split="dev", count=5)
    file.write_bytes(b'\xef\xbb\xbf{"inputs": "a\xe2\x80\xa8b", "targets": 3}\n')
    (row,) = read_rows(tmp_path, ["mine"], split="dev", count=5)[0].rows
    assert (row.inputs, row.targets) == ("a\u2028b", "3")
    file.write_bytes(b'{"inputs": "caf\xe9", "targets": "b"}')
    with pytest.raises(RamoleError, match="is not UTF-8 text at line 1"):
        read_rows(tmp_path, ["mine"], split="dev", count=5)


def test_a_method_that_fits_weights_gets_the_rows_before_as_examples(tmp_path):
    ramole = AnsweringRamole(CROWD)
    before = tuple(Row(f"ant {n}?", "yes") for n in range(2))
    shown = replace(TASKS[0], examples=before)
    cells = Cells(tmp_path, {})
    shared = {"systems": ["lorahub"], "situations": ["ood"]}
    run_rows(ramole, cells, tasks=[shown], **shared)
    found = cells.read("ood", "lorahub", "ant")
    assert len(found.strict) == len(TASKS[0].rows)
    assert all("ant" not in names and len(names) == 2 for names in found.adapters)
    assert all(asked.examples == (("ant 0?", "yes"), ("ant 1?", "yes")) for asked in ramole.asked)
    with pytest.raises(RamoleError, match="skip at least 5"):
        run_rows(ramole, cells, tasks=[TASKS[1]], **shared)


def write_insects(folder, monkeypatch, *, split="dev"):
    """Two tasks of a row, and a fake system that is asked them; its facts."""
    facts = {"base_checksum": "ba", "adapters": {"ant": "01", "bee": "02"}}
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        row = {"inputs": f"{name} a?", "targets": "yes", "metric": "em", "domain": "insects"}
        (folder / name / f"{split}.jsonl").write_text(json.dumps(row | {"task": name}))

    @contextmanager
    def opened(data, *, seed, **how):
        fake = AnsweringRamole(CROWD)
        cards = [SimpleNamespace(name=name) for name in CROWD.samples]
        fake.pool = SimpleNamespace(cards=lambda: cards)
        yield fake, CROWD

    monkeypatch.setattr(command, "opened", opened)
    monkeypatch.setattr("lab.evaluation.facts.shared_facts", lambda *_, **how: dict(facts))
    monkeypatch.setattr("lab.evaluation.facts.own_facts", lambda ramole, system: {})
    monkeypatch.setattr("lab.evaluation.situations.add_own", lambda pool, tasks: None)
    return facts


def test_json_is_all_of_stdout_and_what_the_file_holds(tmp_path, monkeypatch, capsys):
    facts = write_insects(tmp_path, monkeypatch)
    out = tmp_path / "mine.json"
    words = ["evaluate", "--data", str(tmp_path), "--tasks", "ant,bee", "--rows", "1"]
    words += ["--systems", "selection", "--situations", "iid", "--seed", "3"]
    words += ["--work", str(tmp_path / "cells"), "--out", str(out), "--json"]
    monkeypatch.setattr("sys.argv", ["x", *words])
    assert main(words) == 0
    told, err = capsys.readouterr()
    answer = json.loads(told)
    assert answer["seed"] == 3 and "iid selection: 2 questions left" in err
    assert {name: answer[name] for name in facts} == facts
    assert answer["cells"]["iid"]["selection"]["by_task"] == {"ant": 0.0, "bee": 0.0}
    assert answer.pop("out") == str(out) and answer == json.loads(out.read_text())
    assert "--json" not in answer["command"]


@pytest.mark.parametrize("freed", [True, False])
def test_what_a_worker_had_claimed_that_ended_is_made_or_missed(
    tmp_path, monkeypatch, capsys, freed
):
    write_insects(tmp_path, monkeypatch)
    taken, claim = [True], Cells.claim
    refused = lambda self, *name: not (taken[0] and name[-1] == "bee") and claim(self, *name)  # noqa: E731
    monkeypatch.setattr(Cells, "claim", refused)

    def wait() -> int:
        taken[0] = not freed
        return 1

    monkeypatch.setattr(command, "_start_others", lambda workers: [SimpleNamespace(wait=wait)])
    words = ["evaluate", "--data", str(tmp_path), "--tasks", "ant,bee", "--rows", "1"]
    words += ["--systems", "selection", "--situations", "iid", "--work", str(tmp_path / "cells")]
    monkeypatch.setattr("sys.argv", ["x", *words])
    assert main(words) == (0 if freed else 2)
    assert ("1 questions have no answer yet" in capsys.readouterr().err) != freed
    assert (tmp_path / "cells" / "evaluation.json").exists() == freed


def test_test_rows_are_asked_once_by_a_commit_into_a_file(tmp_path, monkeypatch, capsys):
    write_insects(tmp_path, monkeypatch, split="test2")
    words = ["evaluate", "--data", str(tmp_path), "--tasks", "ant,bee", "--split", "test2"]
    words += ["--rows", "1", "--systems", "selection", "--situations", "iid"]
    words += ["--work", str(tmp_path / "cells")]
    out = ["--out", str(tmp_path / "results" / "test2.json")]
    monkeypatch.setattr("sys.argv", ["x", *words, *out])
    assert main(words) == 2 and "name the file by --out" in capsys.readouterr().err
    monkeypatch.setattr("lab.benchmarks.machine.commit", lambda: "ab+")
    assert main([*words, *out]) == 2 and "commit first" in capsys.readouterr().err
    monkeypatch.setattr("lab.benchmarks.machine.commit", lambda: "ab")
    assert main([*words, *out]) == 0
    assert json.loads((tmp_path / "results" / "test2.json").read_text())["commit"] == "ab"
    assert main([*words, *out]) == 0, "the same again goes on, and asks nothing"
    capsys.readouterr()
    assert main([*words, "--k", "2", *out]) == 2
    assert "asked before, by other weights, rows or code" in capsys.readouterr().err


def test_facts_change_with_a_card_s_words_and_its_content():
    def cards_of(**changed):
        card = {"name": "ant", "owner": None, "key": "ant", "texts": ("a?",), "description": "x"}
        card |= {"blind": False, "content": "1"}
        pool = SimpleNamespace(cards=lambda: [SimpleNamespace(**card | changed)])
        ramole = SimpleNamespace(pool=pool, retriever=SimpleNamespace(encoder_checksum="ab"))
        return retrieval_facts(cast(Any, ramole))["cards"]

    changes = ({}, {"texts": ("b?",)}, {"description": "y"}, {"content": "2"}, {"name": "bee"})
    assert len({cards_of(**changed) for changed in changes}) == len(changes)


def test_a_random_router_hangs_on_the_trained_one_that_it_is_drawn_like():
    ramole = SimpleNamespace(weights_checksums=lambda: {"ramole": "ab", "meteora": "cd"})
    names = ("random_router", "meteora", "mixture")
    found = [own_facts(cast(Any, ramole), name).get("weights") for name in names]
    assert found == ["ab", "cd", None]


def test_facts_change_with_rows_and_metrics():
    row, other = Row("1?", "yes"), Row("2?", "yes")
    found = {
        rows_digest([Rows("ant", "", metric, (asked,), (shown,))])
        for metric in ("em", "rouge")
        for asked in (row, other)
        for shown in (row, other)
    }
    assert len(found) == 8


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        ("evaluate --data /me/data --rows 3 --work=/tmp/c --out /tmp/a.json --json",
         "evaluate --data data --rows 3 --out results/a.json"),
        ("evaluate --data /me/reworded --rows 3", "evaluate --data reworded --rows 3"),
    ],
)  # fmt: skip
def test_a_command_is_recorded_without_folders_of_this_machine(words, recorded, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", *words.split()])
    assert recorded_command("ramole_core") == f"python -m ramole_core {recorded}"


def test_an_archive_gives_back_the_cells_of_systems_that_are_as_they_were(tmp_path):
    own = {"ramole": {"weights": "ef"}}
    made = Cells(tmp_path / "a", {"rows": 1}, lambda system: own.get(system, {}))
    for system in ("ramole", "mixture"):
        made.write("iid", system, "ant", cell(3, TASKS[0]))
    made.pack(tmp_path / "cells.gz")
    same = Cells(tmp_path / "b", {"rows": 1}, lambda system: own.get(system, {}))
    assert same.unpack(tmp_path / "cells.gz") == 2 and same.has("iid", "ramole", "ant")
    trained = Cells(tmp_path / "c", {"rows": 1}, lambda system: {"weights": "gh"})
    assert trained.unpack(tmp_path / "cells.gz") == 0
    other = Cells(tmp_path / "d", {"rows": 1}, lambda system: {"a": {}}.get(system, {}))
    assert other.unpack(tmp_path / "cells.gz") == 1 and other.has("iid", "mixture", "ant")
    assert Cells(tmp_path / "e", {"rows": 2}).unpack(tmp_path / "cells.gz") == 0


# --- situations beyond the rows of one task -------------------------------------------------------


HIDDEN = CROWD.distractors
THREE = [
    Rows(name, "", "em", tuple(Row(f"{name} {n}?", f"of {name}") for n in range(6)))
    for name in ("ant", "bee", "cat")
]


@pytest.fixture
def ramole():
    return AnsweringRamole(CROWD)


def table_of(tmp_path, situation, systems=None):
    """The situation, run and told."""
    systems = systems or situation.systems
    cells = Cells(tmp_path, {})
    run_situations([situation], cells, systems=systems)
    return make_situation_table(situation, cells, systems=systems)


def mean(table, system, measure):
    return table["systems"][system][measure]["mean"]


# --- who is right ---------------------------------------------------------------------------------


def test_phrased_counts_who_is_first_and_what_is_left_to_the_base(ramole, tmp_path):
    prompts = [Phrased("ant", "ant please"), Phrased("ant", "bee no I mean an ant")]
    prompts += [Phrased("bee", "bee please"), Phrased("bee", "bee now")]
    ramole.leaves = {"bee now"}
    table = table_of(tmp_path, make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK))
    assert (table["unit"], table["units"], table["questions"]) == ("adapter", 2, 4)
    assert mean(table, "selection", "right") == 75 and mean(table, "selection", "left") == 0
    assert mean(table, "ramole_plus", "right") == 50 and mean(table, "ramole_plus", "left") == 25
    parts = table["parts"]  # ant's were fitted on, so bee's decide
    assert mean(parts[FITTED], "ramole_plus", "right") == 50
    assert mean(parts[HELD_OUT], "ramole_plus", "left") == 50
    assert {r.max_new_tokens for r in ramole.asked} == {1}, "who answers is known at once"
    assert {r.exclude for r in ramole.asked} == {HIDDEN}


def test_a_follow_up_keeps_and_a_change_leaves_the_adapter(ramole, tmp_path):
    chats = [
        FollowUp("ant", "ant 1", "yes", "and this one", "ant"),
        FollowUp("bee", "bee 1", "yes", "now the same", "bee"),
        FollowUp("ant", "ant 2", "yes", "bee instead", "bee"),
        FollowUp("ant", "ant 3", "yes", "who are you", None),
        FollowUp("ant", "ant 4", "yes", "bee who are you", None),
    ]
    ramole.keeps, ramole.leaves = {"and this one", "now the same"}, {"who are you"}
    chats.append(FollowUp("bee", "bee 2", "yes", "and then", "bee"))
    kept, changed = make_chats(ramole, chats, fitted=chats[-1:], hidden=HIDDEN, ask=ASK)
    table = table_of(tmp_path, kept)
    assert set(kept.groups) == {"ant", "bee", "bee, fitted on"}
    table = table["parts"][HELD_OUT]
    assert mean(table, "ramole_plus", "right") == 100 and mean(table, "selection", "right") == 50
    assert table["compared by"] == "right"
    gap = next(one for one in table["differences"] if one["rival"] == "selection")
    assert gap["mean"] == 50 and gap["low"] == 0, "two adapters' interval holds 0"
    other = table_of(tmp_path, changed)
    assert mean(other, "ramole_plus", "right") == pytest.approx(200 / 3, abs=0.01)
    assert mean(other, "selection", "right") == pytest.approx(100 / 3, abs=0.01)


def test_rivals_are_found_anew_for_each_turn_and_ours_as_they_serve(ramole, tmp_path):
    question = Question("bee 1?", ("ant", "bee"), (("ant 0?", "yes"),), "of bee", "em", HIDDEN)
    situation = make_switch(ramole, THREE, hidden=HIDDEN, ask=ASK, seed=0, pairs=1, chats=1)
    asked = {}
    for system in situation.systems:
        ramole.asked.clear()
        situation.measure(system, [question])
        (asked[system],) = ramole.asked
    turns = {system: request.history[0].adapters for system, request in asked.items()}
    assert turns["base"] == () and turns["perfect"] == ("ant",)
    assert asked["perfect"].adapters == ("bee",)
    assert turns["selection"] == ("ant",) and asked["selection"].adapters == ("bee",)
    for system in ("mixture", "similarity", "uniform_router", "random_router", RANDOM):
        assert turns[system] == ("ant", "bee") and asked[system].adapters == ("bee", "ant")
    assert asked[RANDOM].weights == draw_weights("bee 1?", 2)
    for system in ("ramole", "ramole_plus"):
        assert turns[system] is None and asked[system].adapters is None
        assert asked[system].exclude == HIDDEN


@pytest.mark.parametrize(
    ("system", "abstain", "named"),
    [
        ("similarity@abstain=true", True, None),
        ("similarity@abstain=false", False, ("bee", "ant")),
        ("llava_mole", None, None),
    ],
)
def test_a_rival_that_abstains_or_finds_its_own_is_asked_as_it_serves(
    ramole, system, abstain, named
):
    question = Question("bee 1?", ("ant", "bee"), (("ant 0?", "yes"),), "of bee", "em", HIDDEN)
    request = Asker(ramole, ASK, judge_score).request(system, question)
    assert (request.abstain, request.adapters) == (abstain, named)
    assert (request.history[0].adapters is None) == (named is None)


def test_switch_scores_the_second_answer_and_says_how_far_it_is_to_the_right_one(ramole, tmp_path):
    situation = make_switch(ramole, THREE, hidden=HIDDEN, ask=ASK, seed=0, pairs=6, chats=4)
    assert len(situation.groups) == 6 and situation.count == 24
    for name, questions in situation.groups.items():
        first, second = name.split(", then ")
        assert first != second
        for one in questions:
            assert one.right == (first, second) and one.prompt.startswith(second)
            assert one.history[0][0].startswith(first) and one.history[0][1] == f"of {first}"
            assert one.target == f"of {second}"
    ramole.keeps = {one.prompt for one in next(iter(situation.groups.values()))}  # the wrong one
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "score") == mean(table, "perfect", "score") == 100
    assert mean(table, "base", "score") == 0
    assert 0 < mean(table, "ramole_plus", "score") < 100
    gap = next(d for d in table["differences"] if d["rival"] == "selection")
    assert gap["method"] == "ramole_plus" and gap["mean"] < 0


def test_uploads_are_their_owner_s(ramole, tmp_path):
    ramole.names += ("chatty",)
    uploads = [Upload("chatty", ("hi",), ("chatty talk", "ant talk"))]
    situation = make_uploads(ramole, uploads, hidden=HIDDEN, owner="me", ask=ASK)
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "right") == 50
    assert {r.owner for r in ramole.asked} == {"me"}


def test_open_tells_fitted_families_from_others_and_compares_with_the_base(ramole, tmp_path):
    prompts = [Everyday(f, f"{f} {n}") for f in ("talk", "poem", "food", "maths") for n in (1, 2)]
    far = {"far": [Rows("far", "", "em", (Row("far 1?", "x"),))]}
    situation = make_open(ramole, prompts, far, hidden=HIDDEN, ask=ASK)
    assert fitted_half(one.family for one in prompts) == ("talk", "food")
    ramole.leaves = {"poem 1", "poem 2", "maths 1", "talk 1"}
    table = table_of(tmp_path, situation)
    assert (table["unit"], table["questions"]) == ("family", 9)
    parts = table["parts"]
    assert mean(parts[HELD_OUT], "ramole_plus", "right") == 75
    assert mean(parts[HELD_OUT], "ramole_plus", "same") == 75
    assert mean(parts[FITTED], "ramole_plus", "right") == 25
    assert mean(parts[FAR_PART], "ramole_plus", "right") == 0
    for system in ("selection", "mixture", RANDOM):
        assert mean(table, system, "same") == 0 and mean(table, system, "right") == 0
    assert mean(table, "base", "same") == 100 and mean(table, "base", "likeness") == 100
    assert mean(table, "base", "right") == 100, "it is the base that answers"
    assert all(r.trace for r in ramole.asked), "token for token needs the tokens"
    assert set(table_of(tmp_path, situation.cut(1))["parts"]) == {FITTED}


def test_unseen_tasks_have_no_right_adapter(ramole, tmp_path):
    tasks = [Rows("dog", "", "em", (Row("dog 1?", "of ant"), Row("dog 2?", "hm")))]
    ramole.leaves = {"dog 2?"}
    situation = make_unseen(ramole, tasks, hidden=HIDDEN, ask=ASK)
    assert "perfect" not in situation.systems and set(situation.systems) >= {"base", RANDOM}
    table = table_of(tmp_path, situation)
    assert mean(table, "ramole_plus", "score") == 100 and mean(table, "ramole_plus", "left") == 50
    assert mean(table, "mixture", "score") == 50 and mean(table, "base", "score") == 50


def test_copies_are_what_is_found_and_the_samples_are_hidden(ramole, tmp_path):
    ramole.names += ("unnamed-1", "unnamed-2", "unnamed-3")
    copies = dict(zip(("ant", "bee", "cat"), ramole.names[-3:], strict=True))
    situation = make_copied(
        ramole, THREE, copies, name="blind", what="", hidden=ramole.names[:5], owner="me", ask=ASK
    )
    table = table_of(tmp_path, situation)
    assert mean(table, "selection", "right") == pytest.approx(100 / 3, abs=0.01)
    assert mean(table, "perfect", "right") == 100
    found = {name for r in ramole.asked for name in (r.adapters or ())}
    assert found <= set(copies.values())
    assert {r.exclude for r in ramole.asked if r.method == "mixture" and not r.adapters} == {
        ramole.names[:5]
    }


# --- what is drawn --------------------------------------------------------------------------------


def test_pairs_are_ordered_and_balanced():
    names = [f"t{n}" for n in range(24)]
    pairs = draw_pairs(names, 50, seed=0)
    assert len(set(pairs)) == 50 and all(a != b for a, b in pairs)
    for place in (0, 1):
        counts = [sum(pair[place] == name for pair in pairs) for name in names]
        assert max(counts) - min(counts) <= 1
    assert pairs == draw_pairs(names, 50, seed=0) != draw_pairs(names, 50, seed=1)
    assert sorted(draw_pairs(["a", "b"], 9, seed=0)) == [("a", "b"), ("b", "a")]
    assert draw_pairs(["a"], 9, seed=0) == []


def test_no_row_of_another_split_is_asked_and_none_that_is_skipped(ramole, tmp_path, monkeypatch):
    names = ["ant", "bee", "cat", "dog", "emu"]
    for name in names:
        (tmp_path / name).mkdir()
        for split in ("train", "dev", "test", "test2"):
            rows = [
                {"inputs": f"{name} {split} {n}?", "targets": f"{split} {n}"} for n in range(10)
            ]
            text = "\n".join(json.dumps(row | {"metric": "em", "domain": ""}) for row in rows)
            (tmp_path / name / f"{split}.jsonl").write_text(text)
    monkeypatch.setattr(further, "FAR", {"birds": ("emu",)})
    monkeypatch.setattr(further, "FAR_ROWS", 3)
    tasks = read_rows(tmp_path, CROWD.samples, split="dev", count=4, skip=5)
    material = Material(ramole, CROWD, tmp_path, tasks, ASK, 0, "dev", 4, 5)
    for name in ("unseen", "switch", "open"):
        groups = FURTHER[name](material).groups
        asked = [one for group in groups.values() for one in group]
        texts = [text for one in asked for turn in one.history for text in turn]
        texts += [one.prompt for one in asked]
        rows = [text for text in texts if text.split()[0] in names]
        assert rows and all(" dev " in text for text in rows)
        assert {int(text.split()[-1].strip("?")) for text in rows} <= set(range(5, 9))
        assert name != "unseen" or set(groups) == {"dog", "emu"}


# --- what is kept ---------------------------------------------------------------------------------


def test_other_questions_have_other_cells(ramole):
    prompts = [Phrased("ant", "ant please")]
    one = make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK)
    same = make_phrased(ramole, prompts, hidden=HIDDEN, ask=ASK)
    other = make_phrased(ramole, [Phrased("ant", "ant, now")], hidden=HIDDEN, ask=ASK)
    assert one.place("selection") == same.place("selection") != other.place("selection")


def test_what_does_not_retrieve_is_taken_from_the_rows_cells(ramole, tmp_path):
    copies = {name: name for name in CROWD.samples}
    situation = make_copied(
        ramole, THREE, copies, name="blind", what="", hidden=HIDDEN, owner="me", ask=ASK
    )
    assert situation.place("base") == situation.place("perfect") == "alone"
    assert situation.place("mixture") != "alone"
    assert situation.cut(1).place("base") != "alone", "a trial asks other rows"


def test_a_cell_that_is_missing_leaves_its_system_out(ramole, tmp_path):
    situation = make_switch(ramole, THREE, hidden=HIDDEN, ask=ASK, seed=0, pairs=2, chats=1)
    cells = Cells(tmp_path, {})
    run_situations([situation.cut(1)], cells, systems=("mixture",))
    run_situations([situation], cells, systems=("selection",))
    table = make_situation_table(situation, cells, systems=("selection", "mixture"))
    assert set(table["systems"]) == {"selection"}


def test_known_systems_run_where_they_can_differ_and_new_ones_everywhere(ramole):
    situation = make_phrased(ramole, [Phrased("ant", "ant")], hidden=HIDDEN, ask=ASK)
    wanted = [*ORDER, "similarity@abstain=true", "oracle"]
    assert situation.asked(wanted) == ["selection", "ramole_plus", "similarity@abstain=true"]
    trial = make_switch(ramole, THREE, hidden=HIDDEN, ask=ASK, seed=0).cut(2)
    assert len(trial.groups) == 2 and trial.count == 4


# --- numbers --------------------------------------------------------------------------------------


def test_the_pace_estimates_what_is_left(ramole):
    pace = Pace()
    assert pace.left({("switch", "ramole"): 10}) == 0
    pace.add("switch", "base", 10, 5.0)
    pace.add("open", "base", 10, 20.0)
    assert pace.left({("switch", "ramole"): 10}) == 5.0, "as the situation's other systems"
    assert pace.left({("blind", "ramole"): 10}) == 12.5, "as everything"
    assert pace.left({("open", "base"): 2, ("switch", "base"): 2}) == 5.0, "each as it was"


def test_units_count_alike_and_intervals_draw_them(tmp_path):
    def measure(system, questions):
        return [Found((), {"right": float(one.prompt == "good") * 100}) for one in questions]

    groups = {
        "many": tuple(Question("good", (None,)) for _ in range(30)),
        "few": (Question("bad", (None,)),),
    }
    situation = Situation("phrased", "", "adapter", ("selection",), groups, measure)
    table = table_of(tmp_path, situation)
    assert table["systems"]["selection"]["right"] == {"mean": 50.0, "low": 0.0, "high": 100.0}


def test_the_share_of_the_way():
    found = share_of_way([2.0, 2.0, 2.0], [1.0, 1.0, 1.0], [1.5, 1.5, 1.5])
    assert found and (found.mean, found.low, found.high) == (50, 50, 50)
    found = share_of_way([0.0, 0.0], [10.0, 30.0], [0.0, 30.0])  # of the sums, not of the shares
    assert found and found.mean == 75 and found.low == 0 and found.high == 100
    assert share_of_way([1.0, 2.0], [1.0, 2.0], [3.0, 4.0]) is None


def test_a_system_may_be_changed_after_an_at():
    way = read_way("ramole_plus@surprise=0@abstain=false")
    assert (way.method, way.options, way.abstain) == ("ramole_plus", {"surprise": 0}, False)
    for name, sentence in (
        ("selektion", "selektion.*selection"),
        ("ramole_plus@surprize=0", "no option 'surprize'"),
        ("ramole_plus@abstain=3", "true or false"),
    ):
        with pytest.raises(RamoleError, match=sentence):
            describe(name)


def test_random_weights_are_far_from_equal_and_the_prompt_s_own():
    drawn = [draw_weights(f"prompt {n}", 3) for n in range(200)]
    assert drawn[0] == draw_weights("prompt 0", 3) != drawn[1]
    assert all(abs(sum(weights) - 1) < 1e-9 for weights in drawn)
    assert sum(max(weights) for weights in drawn) / 200 > 0.55
