"""The evaluation: cells that survive a stop, tables that add up, and the command on a real pool."""

import fcntl
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.evaluation import command
from lab.evaluation.asking import EXAMPLES
from lab.evaluation.cells import Cell, Cells
from lab.evaluation.evaluate import Rows, make_row_situations, read_rows
from lab.evaluation.facts import own_facts, rows_digest
from lab.evaluation.report import make_tables
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situations import SITUATIONS, Crowd
from lab.evaluation.systems import ORDER, Ask, describe, request_of
from lab.harness import retrieval_facts
from ramole_core.cli import main
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST
from ramole_core.terminal.recorded_command import recorded_command
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


def test_every_system_is_described_and_unknown_ones_are_refused():
    assert all(describe(name) for name in ORDER)
    assert set(ORDER) - {m.name for m in METHOD_LIST} == {"perfect", "random_weights"}
    assert all(describe(m.name) == m.summary for m in METHOD_LIST)
    with pytest.raises(RamoleError, match=r"selektion.*selection"):
        describe("selektion")


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
    systems = ("base", "selection", "mixture", "similarity", "ramole_plus")
    run_rows(ramole, cells, systems=systems, situations=("iid",))
    tables = make_tables(cells, tasks=TASKS, systems=systems, situations=("iid",))
    assert set(tables["left"]["iid"]) == {"ramole_plus"}  # the others do not abstain
    assert tables["left"]["iid"]["ramole_plus"]["mean"] == 25.0  # none of ant's, half of bee's


def test_rows_are_read_from_the_split_and_a_missing_one_is_said(tmp_path):
    folder = tmp_path / "ant"
    folder.mkdir()
    row = {"inputs": "a?", "targets": "b", "metric": "em", "domain": "insects", "task": "ant"}
    lines = [json.dumps(row | {"inputs": f"{n}?"}) for n in range(5)]
    (folder / "test2.jsonl").write_text("\n".join(lines))
    (found,) = read_rows(tmp_path, ["ant"], split="test2", count=3)
    assert (found.domain, found.metric, len(found.rows)) == ("insects", "em", 3)
    (later,) = read_rows(tmp_path, ["ant"], split="test2", count=3, skip=3)
    assert [row.inputs for row in later.rows] == ["3?", "4?"]
    assert found.examples == later.examples == ()
    with pytest.raises(RamoleError, match="no rows after its first 5"):
        read_rows(tmp_path, ["ant"], split="test2", count=3, skip=5)
    with pytest.raises(RamoleError, match=r"dev\.jsonl was not found"):
        read_rows(tmp_path, ["ant"], split="dev", count=3)


def test_examples_are_dev_rows_that_are_not_asked_whichever_split_is(tmp_path):
    folder = tmp_path / "ant"
    folder.mkdir()
    for split in ("dev", "test2"):
        rows = [{"inputs": f"{split} {n}?", "targets": "b", "metric": "em"} for n in range(8)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tested,) = read_rows(tmp_path, ["ant"], split="test2", count=3)
    assert [row.inputs for row in tested.rows] == ["test2 0?", "test2 1?", "test2 2?"]
    assert [row.inputs for row in tested.examples] == [f"dev {n}?" for n in range(EXAMPLES)]
    (first,) = read_rows(tmp_path, ["ant"], split="dev", count=3)
    (later,) = read_rows(tmp_path, ["ant"], split="dev", count=1, skip=7)
    assert first.examples == ()
    assert [row.inputs for row in later.examples] == [f"dev {n}?" for n in range(2, 7)]


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


def test_a_router_that_has_seen_every_task_leaves_no_later_ones(tmp_path):
    tables = make_tables(
        Cells(tmp_path, {}),
        tasks=TASKS,
        systems=(),
        situations=(),
        trained_on=[task.task for task in TASKS],
    )
    assert "later" not in tables


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
    found = {name: own_facts(cast(Any, ramole), name) for name in ("random_router", "meteora")}
    assert {name: facts["weights"] for name, facts in found.items()} == {
        "random_router": "ab",
        "meteora": "cd",
    }
    assert "weights" not in own_facts(cast(Any, ramole), "mixture")


def test_facts_change_with_rows_and_metrics():
    row, other = Row("1?", "yes"), Row("2?", "yes")
    found = {
        rows_digest([Rows("ant", "", metric, (asked,), (shown,))])
        for metric in ("em", "rouge")
        for asked in (row, other)
        for shown in (row, other)
    }
    assert len(found) == 8


def test_a_command_is_told_without_where_things_lie_here(monkeypatch):
    words = "x evaluate --data /home/me/data --rows 3 --work=/tmp/cells --out /tmp/mine.json"
    monkeypatch.setattr("sys.argv", words.split())
    told = "python -m ramole_core evaluate --data data --rows 3 --out results/mine.json"
    assert recorded_command("ramole_core") == told
    monkeypatch.setattr("sys.argv", "x evaluate --data /home/me/reworded --rows 3".split())
    assert recorded_command("ramole_core").endswith("evaluate --data reworded --rows 3")


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
