"""Conversations on the command line: `generate --history`, and `chat` line by line."""

import io
import json
from pathlib import Path

import pytest

from ramole_core.cli import main
from ramole_core.errors import RamoleError
from ramole_core.request import Request
from tests.core.test_cli import Door, door as door, lora_folder, nobody_s_page  # noqa: F401  fixtures

SAID = "Blue [bold]boats ☂"
TURNS = [["one", "1"], ["two", "2", ["x"]], ["three", "", []]]


class Terminal(io.StringIO):
    """Standard input as somebody types it."""

    def isatty(self) -> bool:
        return True


def typed(monkeypatch, text: str, *, terminal: bool = False) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(text) if terminal else io.StringIO(text))


def asked(door: Door) -> list[Request]:
    return [one for one in door.asked if isinstance(one, Request)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(TURNS))
    return path


def test_generate_takes_earlier_turns_from_a_file(door, file, capsys):
    assert main(["generate", "and now?", "--history", str(file), "--drop-turns", "--json"]) == 0
    assert asked(door) == [Request("and now?", history=TURNS, drop_turns=True, trace=False)]
    told = json.loads(capsys.readouterr().out)
    assert told["history"] == [["one", "1", None], *TURNS[1:]] and told["drop_turns"] is True


@pytest.mark.parametrize("command", [["generate", "x"], ["chat"]])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a JSON list of turns"),
        ('{"a": 1}', "is not a JSON list of turns"),
        ('[["a"]]', "Turn 1 of history is ['a']; give (user, assistant)"),
        (None, "give one that is there"),
    ],
)
def test_a_file_of_no_turns_is_one_sentence(command, text, sentence, door, file, capsys):
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert main([*command, "--history", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and len(err.splitlines()) == 1 and door.asked == []


@pytest.mark.parametrize("terminal", [True, False])
def test_each_line_is_a_turn_and_each_turn_tells_its_adapters(
    terminal,
    door,
    capsys,
    monkeypatch,
):
    typed(monkeypatch, "one\n\n  two \n/new\nthree\n/exit\nfour\n", terminal=terminal)
    assert main(["chat", "--k", "2", "--seed", "3", "--system", "Be brief."]) == 0
    how = {"method": "ramole_plus", "k": 2, "seed": 3, "system": "Be brief."}
    first = ("one", SAID, ["a0", "a1"])
    assert asked(door) == [
        Request("one", **how),
        Request("two", history=[first], **how),
        Request("three", **how),
    ]
    out, err = capsys.readouterr()
    assert out == f"{SAID}\n" * 3
    assert err.count("a0 0.75 (50%), a1 0.75 (50%); 3 tokens") == 3
    assert "A new conversation." in err and ("/exit or Ctrl-D" in err) == terminal
    assert door.asked[-1] == "closed"


def test_a_chat_goes_on_from_a_file_until_it_begins_anew(door, file, capsys, monkeypatch):
    typed(monkeypatch, "a\nb\n/new\nc\n")
    assert main(["chat", "--history", str(file), "--drop-turns", "--adapter", "x"]) == 0
    one, two, three = asked(door)
    assert one.history == Request("x", history=TURNS).history and one.drop_turns
    assert two.history == (*one.history, ("a", SAID, ("x",))) and three.history == ()
    assert one.adapters == ("x",)


def test_a_chat_as_json_is_all_of_stdout(door, capsys, monkeypatch):
    typed(monkeypatch, "a\nb\n")
    assert main(["chat", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [turn["prompt"] for turn in told["turns"]] == ["a", "b"]
    assert told["turns"][1]["history"] == [["a", SAID, ["a0", "a1"]]]
    assert told["router_checksum"] == "ab" * 32


def test_what_a_turn_cannot_do_ends_a_script_and_not_a_talk(door, capsys, monkeypatch):
    answer = Door.stream

    def stream(self, request):
        if request.prompt == "bad":
            raise RamoleError("The conversation is too long.")
        return answer(self, request)

    monkeypatch.setattr(Door, "stream", stream)
    typed(monkeypatch, "a\nbad\nb\n", terminal=True)
    assert main(["chat"]) == 0
    assert [one.prompt for one in asked(door)] == ["a", "b"] and len(asked(door)[1].history) == 1
    assert "> The conversation is too long.\n" in capsys.readouterr().err
    door.asked.clear()
    typed(monkeypatch, "a\nbad\nb\n")
    assert main(["chat"]) == 2
    assert [one.prompt for one in asked(door)] == ["a"]
    assert capsys.readouterr().err.splitlines()[-1] == "The conversation is too long."


def test_a_real_chat_keeps_to_its_adapters_and_drops_what_does_not_fit(home, capsys, monkeypatch):
    assert main(["add", str(lora_folder(home / "one", seed=1)), "--name", "red"]) == 0
    long = "paint it " * 26
    typed(monkeypatch, f"paint it\n{long}\n{long}\n")
    words = ["chat", "--method", "mixture", "--max-new-tokens", "4"]
    assert main(words) == 2
    assert "in 3 turns, and the base model reads" in capsys.readouterr().err
    typed(monkeypatch, f"paint it\n{long}\n{long}\n")
    assert main([*words, "--drop-turns", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [turn["adapters"] for turn in json.loads(out)["turns"]] == [["red"]] * 3
    assert "left out: 2." in err


def test_help_lists_what_may_be_typed_and_asks_nothing(door, monkeypatch, capsys):
    typed(monkeypatch, "/help\n/exit\n", terminal=True)
    assert main(["chat"]) == 0 and asked(door) == []
    told = capsys.readouterr()
    assert all(word in told.out + told.err for word in ("/exit", "/new"))
