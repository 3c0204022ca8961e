"""Whether a file is a trace, by its schema and its sizes."""

import json

import numpy as np
import pytest

from ramole_core import RamoleError, Request, write_trace
from ramole_core.cli import main
from ramole_core.trace_check import check_trace
from tests.support.fake_ramole import FakeRamole


@pytest.fixture
def files(tmp_path):
    """One answer's trace, in both formats."""
    request = Request("Which boats?", owner="session-x", effects=True)
    *_, (_, answer) = FakeRamole().stream_batch([request])
    for ending in ("json", "npz"):
        write_trace(answer, tmp_path / f"trace.{ending}", request=request, facts={"a": 1})
    return tmp_path


def test_what_is_written_is_a_trace_in_both_formats(files):
    facts = [check_trace(files / f"trace.{ending}") for ending in ("json", "npz")]
    assert facts[0] == facts[1] and facts[0].version == 4
    assert (facts[0].tokens, facts[0].prompt_length, facts[0].layers) == (10, 2, 5)
    assert facts[0].adapters == ("ant", "bee", "cat")


ASKED = {
    "tokens of no text": Request("hi", logit_bias={7: -2.5}),
    "numbers beyond 64 bits": Request("hi", k=10**30, json_schema={"maximum": 10**30}),
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("ending", ["json", "npz"])
def test_what_was_asked_stands_in_both_formats(tmp_path, what, ending):
    *_, (_, answer) = FakeRamole().stream_batch([Request("hi")])
    file = write_trace(answer, tmp_path / f"trace.{ending}", request=ASKED[what])
    assert check_trace(file).version == 4
    if ending == "json":
        told = json.loads(file.read_text("utf-8"))["request"]
    else:
        with np.load(file) as held:
            told = json.loads(str(held["request"]))
    assert Request(**told) == ASKED[what]


CHANGES = {
    "tokens": lambda held: held["tokens"].pop(),
    "weights": lambda held: held["weights"][0][0].pop(),
    "shares": lambda held: held["shares"].__setitem__(0, [2.0, 0.0, 0.0]),
    "scores": lambda held: held.__setitem__("scores", [0.5]),
    "version": lambda held: held.__setitem__("version", 9),
    "request": lambda held: held["request"].__setitem__("owner", "session-x"),
    "present": lambda held: held["present"][0][0][0].__setitem__(0, 2),
    "colour": lambda held: held.__setitem__("colour", "red"),
    "answer": lambda held: held.pop("answer"),
    "effects": lambda held: held["effects"].pop(),
    "subset_logprob has": lambda held: held["subset_logprob"][0].pop(),
    "subset_logprob makes": lambda held: held["subset_logprob"][0].__setitem__(1, 5.0),
    "miss logprob": lambda held: held["logprob"].__setitem__(0, 5.0),
    "prompt": lambda held: held.__setitem__("prompt_length", 99),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_named_in_one_sentence(files, name):
    file = files / "trace.json"
    held = json.loads(file.read_text())
    CHANGES[name](held)
    file.write_text(json.dumps(held))
    with pytest.raises(RamoleError, match="no trace") as caught:
        check_trace(file)
    said = str(caught.value)
    assert name in said and "\n" not in said and len(said) < 400


def test_other_files_are_refused(files, tmp_path, capsys):
    whole = (files / "trace.npz").read_bytes()
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.txt").write_text("x")
    np.savez(tmp_path / "e.npz", tokens=np.array([{}], dtype=object))  # needs pickle
    np.savez(tmp_path / "f.npz", request=np.zeros(2))
    np.save(tmp_path / "g.npy", np.zeros(2))
    (tmp_path / "g.npy").rename(tmp_path / "g.npz")
    (tmp_path / "h.json").write_text("[" * 200_000)
    (tmp_path / "i.npz").write_bytes(whole[:61] + b"?" + whole[62:])  # of compressed data
    for name in (*[path.name for path in tmp_path.glob("?.*")], "gone.json"):
        with pytest.raises(RamoleError, match=name):
            check_trace(tmp_path / name)
        assert main(["trace", str(tmp_path / name)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_says_what_a_trace_is_of(files, capsys):
    assert main(["trace", str(files / "trace.npz"), str(files / "trace.json")]) == 0
    said = capsys.readouterr().out
    assert said.count("10 tokens (2 of the prompt)") == 2 and "ant, bee, cat" in said
    assert main(["trace", str(files / "trace.json"), "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["traces"].values()
    assert facts["modules"] == 2
