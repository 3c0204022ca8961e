"""Claims of papers against measured cells: differences by hand, verdicts, what is not there."""

import gzip
import json

import pytest

from lab.evaluation.intervals import Interval
from lab.evaluation.papers import CLAIMS, judged, main, verdict
from lab.evaluation.systems import describe
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST

EVERY = json.loads(CLAIMS.read_text("utf-8"))


@pytest.fixture
def folder(tmp_path):
    def cells(**rows):
        return {
            f"{key}/{task}": {"strict": values, "lenient": [0.0] * len(values)}
            for key, tasks in rows.items()
            for task, values in tasks.items()
        }

    held = cells(**{
        "iid/ant": {"one": [60.0, 80.0], "two": [50.0], "three": [9.0]},
        "iid/bee": {"one": [40.0, 50.0], "two": [30.0]},
        "ood/ant": {"one": [0.0, 0.0]},
        "alone/base": {"one": [10.0, 10.0], "two": [10.0]},
    })  # fmt: skip
    (tmp_path / "methods_dev_cells.json.gz").write_bytes(
        gzip.compress(json.dumps({"cells": held, "facts": {"k": 3, "rows": 2}}).encode())
    )
    other = cells(**{"iid/ant@top=3": {"one": [61.0, 81.0], "two": [51.0]}})
    (tmp_path / "wide_cells.json.gz").write_bytes(
        gzip.compress(json.dumps({"cells": other, "facts": {"k": 24, "rows": 2}}).encode())
    )
    table = {"low": {"mean": -1.0, "low": -2.0, "high": 1.0}}
    (tmp_path / "ant.json").write_text(json.dumps({"table": table}))
    return tmp_path


def claim(ours, rival, claimed="ahead", **more):
    row = {"method": "ant", "says": "-", "paper": "-", "ours": ours, "rival": rival}
    return {**row, "situation": "iid", "claimed": claimed, **more}


def test_a_difference_is_over_the_rows_of_the_tasks_that_both_have(folder):
    found = judged(claim("ant", "bee"), folder)
    assert found["mean"] == pytest.approx((20 + 30 + 20) / 3, abs=0.01)
    assert (found["low"], found["high"], found["verdict"]) == (20.0, 25.0, "same")
    assert judged(claim("bee", "ant"), folder)["verdict"] == "other"


def test_the_base_answers_alike_in_every_situation(folder):
    assert judged(claim("ant", "base", situation="ood"), folder)["mean"] == -10.0
    assert judged(claim("ant", "base"), folder)["mean"] == pytest.approx(160 / 3, abs=0.01)


def test_a_side_is_read_from_the_file_that_it_names(folder):
    found = judged(claim("wide:ant@top=3", "ant"), folder)
    assert (found["mean"], found["low"], found["high"]) == (1.0, 1.0, 1.0)


def test_cells_of_other_rows_are_not_paired(folder):
    file = folder / "late_cells.json.gz"
    held = {"cells": {"iid/ant/one": {"strict": [1.0]}}, "facts": {"k": 3, "rows": 1}}
    file.write_bytes(gzip.compress(json.dumps(held).encode()))
    with pytest.raises(RamoleError, match="differ in rows, so their rows cannot be paired"):
        judged(claim("late:ant", "ant"), folder)


def test_a_difference_may_stand_in_a_table(folder):
    found = judged(claim("a", "b", "level", table=["ant.json", "table", "low"]), folder)
    assert (found["mean"], found["verdict"]) == (-1, "same")


@pytest.mark.parametrize(
    "missing",
    [
        claim("cow", "bee"),
        claim("none:ant", "bee"),
        claim("a", "b", table=["ant.json", "table", "no"]),
        claim("a", "b", table=["no.json", "table"]),
    ],
)
def test_what_was_not_measured_has_no_verdict(folder, missing):
    assert judged(missing, folder) == missing


@pytest.mark.parametrize(
    ("low", "high", "ahead", "behind", "level"),
    [
        (1.0, 2.0, "same", "other", "same"),
        (-2.0, -1.0, "other", "same", "same"),
        (-1.0, 2.0, "unclear", "unclear", "same"),
        (-5.0, -4.0, "other", "same", "other"),
        (-5.0, 1.0, "unclear", "unclear", "unclear"),
    ],
)
def test_a_verdict_is_the_interval_s(low, high, ahead, behind, level):
    gap = Interval((low + high) / 2, low, high)
    assert [verdict(one, gap) for one in ("ahead", "behind", "level")] == [ahead, behind, level]


def test_the_file_says_what_it_was_made_of(folder, capsys):
    main(folder / "papers.json")
    made = json.loads((folder / "papers.json").read_text("utf-8"))
    assert len(made["claims"]) == len(EVERY)
    assert list(made["files"]) == ["methods_dev_cells.json.gz"]
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row["says"])
def test_a_claim_is_of_systems_that_are_there(row):
    assert row["method"] in {method.name for method in METHOD_LIST}
    assert row["claimed"] in ("ahead", "behind", "level")
    if "table" not in row:
        assert row["situation"] in ("iid", "ood")
        for side in ("ours", "rival"):
            describe(row[side].rpartition(":")[2])
