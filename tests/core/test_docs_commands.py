"""The command line of `docs/api.md`, line by line in its order, on a tiny base and three adapters.

That every command and option on any page exists is checked in `test_house.py`; here they run. Left
out is what waits for a signal, a card, the Hub or a long training, each with tests of its own.
"""

import io
import json
import re
import shlex
from pathlib import Path

from ramole_core.cli import main
from tests.core.test_cli import lora_folder
from tests.support.pool_fakes import zipped

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
CALL = "python -m ramole_core "
ELSEWHERE = ("page", "serve", "calibrate", "hub", "train", "benchmark", "evaluate", "--url")
SAYS = {
    "doctor": "base model",
    "add": "Added my-lora: rank 3",
    "list": "my-lora",
    "retrieve": "my-lora",
    "generate": " tokens",
    "chat": "my-lora",
    "remove": "Removed my-lora.",
    "batch": "3 answers",
    "merge": "merged",
    "methods": "ramole_plus",
    "keys": "ramole_",
    "mixes": "",
    "trace": "out.npz",
}
"""What each command prints, at least."""


def lines() -> list[list[str]]:
    """The commands of the page that run here."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    said = [line for block in blocks for line in block.splitlines() if line.startswith(CALL)]
    words = [shlex.split(line.removeprefix(CALL), comments=True) for line in said]
    return [one for one in words if one[0] not in ELSEWHERE and "--gpu" not in one]


def test_every_command_is_run():
    assert {words[0] for words in lines()} == set(SAYS)


def test_the_commands_do_what_their_comments_say(home, monkeypatch, capsys):
    for seed, name in enumerate(("true_case", "fix_punct"), 1):
        assert main(["add", str(lora_folder(home / name, seed=seed)), "--name", name]) == 0
    zipped(lora_folder(home / "files" / "my-lora", seed=3), home / "my-lora.zip")
    (home / "talk.json").write_text('[["which files are here?", "ls"]]')
    (home / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in "abc"))
    monkeypatch.chdir(home)
    for words in lines():
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/exit\n"))
        status = main(words)
        out, err = capsys.readouterr()
        assert status == 0, (words, err)
        assert SAYS[words[0]] in out + err, (words, out, err)
    assert (home / "out.npz").is_file() and (home / "merged").is_dir()
    assert len((home / "answers.jsonl").read_text().splitlines()) == 3
    assert "anna" in (home / "keys.jsonl").read_text()
