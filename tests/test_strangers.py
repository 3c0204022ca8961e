"""Adapters that PEFT alone trained are made once, and usable ones of the pool."""

import json

import pytest

from lab import strangers
from lab.__main__ import main
from ramole_core import Ramole, Request
from tests.conftest import tiny_settings


@pytest.fixture
def words(tmp_path, tiny_nf4, monkeypatch) -> list[str]:
    """The command for three of them, with nine rows each."""
    monkeypatch.setattr(strangers, "STRANGERS", strangers.STRANGERS[1:4])
    for one in strangers.STRANGERS:
        (tmp_path / "data" / one.task).mkdir(parents=True)
        rows = [{"inputs": f"{one.task} {n}?", "targets": f"yes {n}"} for n in range(9)]
        for split in ("train", "dev"):
            text = "\n".join(json.dumps({**row, "metric": "em"}) for row in rows)
            (tmp_path / "data" / one.task / f"{split}.jsonl").write_text(text)
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tiny_nf4))
    words = ["strangers", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "made")]
    return [*words, "--steps", "12", "--batch-rows", "2", "--out", str(tmp_path / "out.json")]


def losses_in(folder) -> dict[str, float]:
    return json.loads((folder / "out.json").read_text("utf-8"))["last_losses"]


def test_they_are_trained_once_and_served(words, tiny_nf4, tmp_path):
    assert main(words) == 0
    losses = losses_in(tmp_path)
    assert set(losses) == {one.task for one in strangers.STRANGERS}
    assert main(words) == 0
    again = losses_in(tmp_path)
    assert again == losses, "they were there"
    with Ramole(tiny_settings(tiny_nf4, tmp_path)) as ramole:
        for one in strangers.STRANGERS:
            card = ramole.pool.add(tmp_path / "made" / one.task, name=one.task)
            assert card.rank == one.config["r"] and len(card.examples) == 9
        asked = Request("jfleg_gec 3?", method="selection", max_new_tokens=2)
        assert ramole.generate([asked])[0].adapters[0] in losses


def test_a_run_that_was_stopped_keeps_its_losses_and_goes_on(words, tmp_path, monkeypatch, capsys):
    first, second, _ = (one.task for one in strangers.STRANGERS)
    made: list[str] = []

    def train(one, rows, base, folder, **pace):
        if one.task == second and len(made) == 1:
            raise KeyboardInterrupt
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        made.append(one.task)
        return len(made) / 4

    monkeypatch.setattr(strangers, "train", train)
    monkeypatch.setattr(strangers, "STRANGERS", strangers.STRANGERS[:2])
    assert main(words) == 130 and losses_in(tmp_path) == {first: 0.25}
    made.append("a second run")
    assert main(words) == 0 and losses_in(tmp_path) == {first: 0.25, second: 0.75}
    assert main([*words, "--seed", "7"]) == 2, "they are of another seed"
    assert "give another file by --out" in capsys.readouterr().err.splitlines()[-1]
    assert losses_in(tmp_path) == {first: 0.25, second: 0.75}


def test_fewer_rows_than_a_batch_takes_are_one_sentence(words, capsys):
    assert main([*words, "--batch-rows", "10"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(
        "jfleg_gec has 9 rows of at most 160 tokens (9 in all), fewer than the 10"
    )
