"""Adapters that PEFT alone trained are made once, and usable ones of the pool."""

import json

from lab import strangers
from lab.__main__ import main
from ramole_core import Ramole, Request
from tests.conftest import tiny_settings


def test_they_are_trained_once_and_served(tiny_nf4, tmp_path, monkeypatch):
    monkeypatch.setattr(strangers, "STRANGERS", strangers.STRANGERS[1:4])
    for one in strangers.STRANGERS:
        (tmp_path / "data" / one.task).mkdir(parents=True)
        rows = [{"inputs": f"{one.task} {n}?", "targets": f"yes {n}"} for n in range(9)]
        for split in ("train", "dev"):
            text = "\n".join(json.dumps({**row, "metric": "em"}) for row in rows)
            (tmp_path / "data" / one.task / f"{split}.jsonl").write_text(text)
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tiny_nf4))
    words = ["strangers", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "made")]
    words += ["--steps", "12", "--batch-rows", "2", "--out", str(tmp_path / "out.json")]
    assert main(words) == 0
    losses = json.loads((tmp_path / "out.json").read_text("utf-8"))["last_losses"]
    assert set(losses) == {one.task for one in strangers.STRANGERS}
    assert main(words) == 0
    again = json.loads((tmp_path / "out.json").read_text("utf-8"))["last_losses"]
    assert again == {}, "they were there"
    with Ramole(tiny_settings(tiny_nf4, tmp_path)) as ramole:
        for one in strangers.STRANGERS:
            card = ramole.pool.add(tmp_path / "made" / one.task, name=one.task)
            assert card.rank == one.config["r"] and len(card.examples) == 9
        asked = Request("jfleg_gec 3?", method="selection", max_new_tokens=2)
        assert ramole.generate([asked])[0].adapters[0] in losses
