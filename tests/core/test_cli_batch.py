"""The command `batch`: lines as answers come, going on after any end, a sentence for each slip."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ramole_core.batch.record import added_to
from ramole_core.cli import main
from tests.core.test_cli import nobody_s_page  # noqa: F401  a fixture
from tests.support.batch_door import Door
from tests.support.fake_ramole import WORDS
from tests.support.workers import REPOSITORY

ROWS = '{"prompt": "a", "id": "x", "label": 1}\n{"prompt": "b", "k": 2}\n{"prompt": "c"}\n'
KEYS = set(
    "index line id digest prompt text method adapters similarities weights options temperature "
    "top_p seed finish_reason prompt_tokens new_tokens seconds first_token_seconds stages".split()
)


@pytest.fixture
def door(monkeypatch) -> Door:
    made = Door()
    monkeypatch.setattr("ramole_core.ramole.Ramole", lambda *settings: made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(ROWS)
    return path


def standard_input(monkeypatch, data: bytes) -> None:
    """Standard input of these bytes, opened as Python opens it in a locale of UTF-8."""
    opened = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", opened)


def lines(text: str | Path) -> list[dict]:
    text = text.read_text("utf-8") if isinstance(text, Path) else text
    return [json.loads(line) for line in text.splitlines()]


def test_each_answer_is_a_line_of_stdout_in_the_order_of_its_end(door, file, capsys):
    assert main(["batch", str(file), "--method", "mixture", "--k", "4", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    told = lines(out)
    assert [line["index"] for line in told] == [2, 1, 0]
    assert [len(line["adapters"]) for line in told] == [4, 2, 4]
    for line in told:
        assert line["text"] == "".join(WORDS) and line["method"] == "mixture"
        assert line["seed"] == 5 and set(line) - {"extra", "k"} == KEYS
    assert told[2]["id"] == "x" and told[2]["extra"] == {"label": 1} and told[2]["line"] == 1
    assert "Carried along, not used: label." in err
    assert err.splitlines()[-1].startswith("3 answers, 24 tokens in")
    assert door.asked == [["a", "b", "c"], ["closed"]]


def test_earlier_turns_stand_in_the_line_of_the_answer(door, tmp_path, capsys):
    row = {"prompt": "and?", "history": [["a", "b", ["ant"]]], "drop_turns": True}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert main(["batch", str(tmp_path / "rows.jsonl")]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert {name: line[name] for name in row} == row
    assert set(line) == {*KEYS, "history", "drop_turns"}


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_standard_input_is_decoded_as_a_file_is(coding, door, monkeypatch, capsys):
    standard_input(monkeypatch, "prompt;max_new_tokens;adapters\nblå;2;dog|ant\n".encode(coding))
    assert main(["batch", "-"]) == 0
    (line,) = lines(capsys.readouterr().out)
    assert (line["prompt"], line["new_tokens"]) == ("blå", 2)
    assert line["adapters"] == ["dog", "ant"]


def test_standard_input_that_is_no_text_is_one_sentence(door, monkeypatch, capsys):
    standard_input(monkeypatch, b"prompt\nbl\xe5\n")
    assert main(["batch", "-"]) == 2
    assert "Standard input is not UTF-8 text at line 2" in capsys.readouterr().err
    assert not door.batches


def test_json_is_all_of_stdout(door, file, tmp_path, capsys):
    assert main(["batch", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [answer["index"] for answer in told["answers"]] == [2, 1, 0]
    assert told["rows"] == told["answered"] == 3 and told["kept"] == told["refused"] == 0
    assert told["new_tokens"] == 24 and told["router_checksum"] == "ab" * 32
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(file), "--json", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(out) and "answers" not in told and len(lines(out)) == 3


def test_bad_rows_are_told_and_the_others_run(door, file, tmp_path, capsys):
    file.write_text(ROWS + '{"prompt": "d", "k": "x"}\n{"prompt": "e", "adapters": ["bea"]}\nno\n')
    out = tmp_path / "out.jsonl"
    door.refuses = lambda one: "The prompt is too long." * (one.prompt == "c")
    assert main(["batch", str(file), "--out", str(out)]) == 2
    told, err = lines(out), capsys.readouterr().err
    assert [(line["line"], line["error"][:20]) for line in told if "error" in line] == [
        (4, "k='x'; give a whole "),
        (5, "There is no adapter "),
        (6, "This is not JSON of "),
        (3, "The prompt is too lo"),
    ]
    assert sorted(line["index"] for line in told if "text" in line) == [0, 1]
    for number in 3, 4, 5, 6:
        assert f"\nLine {number}: " in f"\n{err}"
    assert "4 rows refused." in err.splitlines()[-1]


def test_many_bad_rows_do_not_flood_the_terminal(door, file, capsys):
    file.write_text("{}\n" * 50 + ROWS)
    assert main(["batch", str(file)]) == 2
    out, err = capsys.readouterr()
    assert len(lines(out)) == 53 and "... and 30 more rows" in err and len(err.splitlines()) < 30


def test_resume_asks_only_what_is_missing_or_was_changed(door, file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(file), "--out", str(out)]) == 0
    assert main(["batch", str(file), "--out", str(out)]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert len(lines(out)) == 3
    words = ["batch", str(file), "--out", str(out), "--resume"]
    assert main(words) == 0 and len(lines(out)) == 3
    assert "3 of 3 rows have their answer already." in capsys.readouterr().err
    file.write_text(ROWS.replace('"c"', '"changed"') + '{"prompt": "d"}\n')
    door.asked.clear()
    assert main(words) == 0
    assert door.asked == [["changed", "d"], ["closed"]] and len(lines(out)) == 5
    door.asked.clear()
    assert main([*words, "--k", "1"]) == 0  # another k for those that do not say: b said its own
    assert door.asked[0] == ["a", "changed", "d"]


def test_the_last_line_of_a_row_counts_whichever_came_before(door, file, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ["batch", str(file), "--out", str(out), "--resume"]
    assert main(words) == 0
    kept = out.read_text()
    out.write_text(kept + '{"index": 1, "line": 2, "error": "It was away.", "row": "b"}\n')
    door.asked.clear()
    assert main(words) == 0
    assert door.asked[0] == ["b"], "refused last, so it is asked again"
    changed = ROWS.replace('"c"', '"changed"')
    for rows, asked in ((changed, "changed"), (ROWS, "c")):  # changed, and back again
        file.write_text(rows)
        door.asked.clear()
        assert main(words) == 0
        assert door.asked[0] == [asked]


def test_two_runs_do_not_write_one_file(door, file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(file), "--out", str(out)]) == 0
    kept = out.read_bytes()
    with added_to(out):
        file.write_text(ROWS + '{"prompt": "d"}\n')
        assert main(["batch", str(file), "--out", str(out), "--resume"]) == 2
    assert "Another run writes to" in capsys.readouterr().err and out.read_bytes() == kept


def test_what_another_run_wrote_before_the_lock_is_kept(door, file, tmp_path, monkeypatch):
    """Another run ends just before this one has the file."""
    out, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    assert main(["batch", str(file), "--out", str(other)]) == 0
    first, second, third = other.read_bytes().splitlines(keepends=True)
    out.write_bytes(first)
    lock = fcntl.flock

    def late(opened, how):
        with out.open("ab") as another:
            another.write(second)
        lock(opened, how)

    monkeypatch.setattr("ramole_core.batch.record.fcntl.flock", late)
    door.asked.clear()
    assert main(["batch", str(file), "--out", str(out), "--resume"]) == 0
    assert out.read_bytes().startswith(first + second)
    assert door.asked[0] == [json.loads(third)["prompt"]]
    assert sorted(line["index"] for line in lines(out)) == [0, 1, 2]


def test_a_refusal_is_written_once(door, file, tmp_path, capsys):
    file.write_text(ROWS + "{}\n")
    words = ["batch", str(file), "--out", str(tmp_path / "o"), "--resume"]
    assert main(words) == main(words) == 2
    assert len(lines(tmp_path / "o")) == 4


@pytest.mark.parametrize("cut", [1, 9, 40, 200])
def test_a_line_that_was_cut_off_is_asked_again(cut: int, door, file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["batch", str(file), "--out", str(out)]) == 0
    whole = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(whole[0] + whole[1] + whole[2][:cut])
    door.asked.clear()
    assert main(["batch", str(file), "--out", str(out), "--resume"]) == 0
    assert door.asked[0] == ["a"]
    assert sorted(line["index"] for line in lines(out)) == [0, 1, 2]


@pytest.mark.parametrize("text", ["hello", "{}\n", '{"index": 0, "text": "x"}\n', "[1]\n", "\n"])
def test_a_file_of_something_else_is_left_alone(text: str, door, file, tmp_path, capsys):
    out = tmp_path / "thesis.txt"
    out.write_text(text)
    assert main(["batch", str(file), "--out", str(out), "--resume"]) == 2
    assert "line 1, is no answer of a batch" in capsys.readouterr().err
    assert out.read_text() == text


def test_ctrl_c_keeps_what_is_written(door, file, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    door.interrupts = 2
    assert main(["batch", str(file), "--out", str(out)]) == 130
    err = capsys.readouterr().err.splitlines()
    assert "2 answers" in err[-2] and "1 rows are left, --resume asks them" in err[-2]
    assert err[-1] == "Stopped." and [line["index"] for line in lines(out)] == [2, 1]
    assert door.running == 0 and door.asked[-1] == ["closed"]
    door.interrupts = 0
    assert main(["batch", str(file), "--out", str(out), "--resume"]) == 0
    assert len(lines(out)) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["batch"], "Missing argument 'file'"),
        (["batch", "/nonexistent/rows.csv"], "/nonexistent/rows.csv"),
        (["batch", "FILE", "--resume"], "name it with --out"),
        (["batch", "EMPTY"], "There is no row"),
        (["batch", "HEADLESS.csv"], "no column named prompt, question, text or input, but a,b"),
        (["batch", "FILE", "--out", "/nonexistent/out"], "/nonexistent/out"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words, sentence, door, file, tmp_path, capsys):
    (tmp_path / "EMPTY").write_text("\n")
    (tmp_path / "HEADLESS.csv").write_text("a,b\n1,2\n")
    file.rename(tmp_path / "FILE")
    words = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in words]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and len(err.splitlines()) == 1
    assert not door.batches


SLOW = """
import os
import sys
import ramole_core.ramole
from ramole_core.cli import main
from tests.support.batch_door import Door
ramole_core.ramole.Ramole = lambda *settings: Door(pause=float(os.environ['PAUSE']), length=3)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment_it_goes_on(sign, tmp_path):
    file, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    file.write_text("prompt\n" + "".join(f"p{i}\n" for i in range(150)))
    words = [sys.executable, "-c", SLOW, "batch", str(file), "--out", str(out), "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PAUSE": "0.1"}  # 150 rows: 6 seconds
    for _ in range(2):
        had = out.read_bytes().count(b"\n") if out.exists() else 0
        process = subprocess.Popen(  # hears Ctrl-C also where the tests run in the background
            words,
            cwd=REPOSITORY,
            env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while not out.exists() or out.read_bytes().count(b"\n") < had + 20:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(sign)
        assert process.wait(60) == (130 if sign == signal.SIGINT else -9)
    before = out.read_bytes()
    quick = environment | {"PAUSE": "0.001"}
    subprocess.run(words, cwd=REPOSITORY, env=quick, check=True, timeout=120)
    assert out.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    told = lines(out)
    assert sorted(line["index"] for line in told) == list(range(150))
    assert all(line["prompt"] == f"p{line['index']}" for line in told)
