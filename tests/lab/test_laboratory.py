"""The laboratory's commands, and what all measurements share."""

import json
import re
import shlex
from importlib import import_module

import pytest
import typer

from lab import harness
from lab.__main__ import MEASUREMENTS, ONCE, command_of, main, summary_of
from lab.evaluation.cells import Cell, Cells, fill
from lab.evaluation.usable import judged
from ramole_core.errors import RamoleError
from ramole_core.settings import REPOSITORY


def test_the_list_has_one_line_a_measurement(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(MEASUREMENTS)]] == list(MEASUREMENTS)
    assert all(map(summary_of, MEASUREMENTS))
    assert main(["no_table"]) == 2
    assert "No measurement is named 'no_table'; choose from dev_table" in capsys.readouterr().err


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_has_help_and_writes_where_it_is_told(name, capsys):
    assert main([name, "--help"]) == 0
    assert "--out" in capsys.readouterr().out
    assert main([name, "--no-such-option"]) == 2
    assert f"See python -m lab {name} --help." in capsys.readouterr().err
    words = import_module(MEASUREMENTS[name]).__doc__ or ""
    assert f"    python -m lab {name}" in words


def recorded():
    """The laboratory's commands in results and on pages, each once."""
    pages = [path.read_text("utf-8") for path in (REPOSITORY / "docs").glob("*.md")]
    lines = [line for text in pages for line in re.findall(r"^python -m lab .*$", text, re.M)]
    for path in (REPOSITORY / "results").glob("*.json"):
        lines += re.findall(r'"command": "(python -m lab .*)"', path.read_text("utf-8"))
    return sorted(set(lines))


def test_what_results_and_pages_record_can_be_typed():
    assert len(recorded()) >= 12
    for line in recorded():
        *_, module, name = shlex.split(line)[:4]
        assert module == "lab"
        if name in ONCE:
            continue
        assert name in MEASUREMENTS, line
        command = typer.main.get_command(command_of(name))
        command.make_context(name, shlex.split(line)[4:])  # raises what the program would say


def test_results_are_whole_and_go_on_where_the_facts_are_the_same(tmp_path):
    out = tmp_path / "new" / "table.json"
    results = harness.Results(out, seed=3, sizes=(1, 2))
    results.write(rows=["a"])
    held = json.loads(out.read_text())
    assert list(held) == ["command", "date", "machine", "versions", "seed", "sizes", "rows"]
    assert "cores" in held["machine"] and held["versions"]["torch"]
    again = harness.Results(out, seed=3, sizes=(1, 2))
    assert again.take_over("rows", "none", where=("seed", "sizes")) and again.held["rows"] == ["a"]
    other = harness.Results(out, seed=4, sizes=(1, 2))
    assert not other.take_over("rows", where=("seed",)) and "rows" not in other.held


def test_a_table_makes_only_the_cells_that_are_missing(tmp_path, capsys):
    asked = []

    def make(names):
        for name in names:
            asked.append(name)
            yield name, Cell([50.0], [], [], measures={"loss": [0.25]})
            if name == "bee":
                raise KeyboardInterrupt

    cells = Cells(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        fill(cells, "own", "mixture", ["ant", "bee", "cat"], make)
    found = fill(cells, "own", "mixture", ["ant", "bee", "cat"], make)
    assert asked == ["ant", "bee", "cat"] and list(found) == asked
    assert "bee" in capsys.readouterr().out and found["cat"].measures == {"loss": [0.25]}


def test_an_answer_is_of_use_where_all_readers_say_so():
    rows = [
        {"adapter": name, "prompt": "x", "found": [found], "answer": "y"}
        for name, found in (("ant", "ant"), ("ant", "base"), ("bee", "bee"))
    ]
    said = judged(rows, [{"0": "right", "1": "usable", "2": "right"},
                         {"0": "usable", "1": "usable", "2": "wrong"}])["judged"]  # fmt: skip
    assert (said["answers_of_use"], said["of"], said["of_these_of_use"]) == (2, 3, 1)
    assert (said["adapters_all_of_use"], said["adapters_any_of_use"], said["adapters"]) == (1, 1, 2)
    for other in ({"0": "right"}, {"0": "good", "1": "right", "2": "right"}):
        with pytest.raises(RamoleError, match="give each answer one"):
            judged(rows, [other])
