"""The command `hub`, and the commands that use what it listed, on a tiny base."""

import json

import pytest

from ramole_core.cli import main
from tests.core.test_cli import lora_folder
from tests.support.hub_server import BASE, Repository


@pytest.fixture
def hub(home, monkeypatch, hub_server):
    """A Hub with two adapters that fit, and one that does not; nothing else anywhere."""
    monkeypatch.setenv("RAMOLE_HUB_BASE", BASE)
    for seed, task in enumerate(("sums", "poems")):
        folder = lora_folder(home / task, seed=seed)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        files["README.md"] = f"Writes {task} of all kinds.".encode()
        hub_server.repositories[f"ada/{task}"] = Repository(
            files, downloads=9 - seed, tags=["license:mit"]
        )
    bare = {"adapter_model.bin": b"\x80\x04."}
    hub_server.repositories["bob/[old]-pickle"] = Repository(bare)
    hub_server.repositories["bob/pickle"] = Repository(bare)
    return hub_server


def test_the_hub_is_listed_shown_and_used(hub, tmp_path, capsys, monkeypatch):
    assert main(["hub", "--out", str(tmp_path / "table.json")]) == 0
    out, err = capsys.readouterr()
    rows = [line for line in out.splitlines() if "/" in line and "adapter" not in line[:8]]
    assert [row.split()[0] for row in rows] == ["ada/sums", "ada/poems", "bob/pickle"]
    assert "mit" in rows[0] and "fits" in rows[0] and "refused" in rows[2]
    assert "which can run code" in rows[2]
    assert f"3 adapters of {BASE} are listed, 1 of them refused; 3 cards were read" in err
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["verdict"] for row in table["listed"]] == ["fits", "fits", "refused"]
    assert table["base"] == BASE and table["read"] == 3 and not hub.weights_asked()

    main(["add", str(lora_folder(tmp_path / "mine", seed=5)), "--name", "mine"])
    capsys.readouterr()
    assert main(["retrieve", "writes poems of all kinds"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("ada--poems") and "on the Hub, fetched on first use" in first
    ask = ["generate", "writes sums", "--method", "mixture", "--max-new-tokens", "2"]
    assert main([*ask, "--adapter", "hf:ada/sums"]) == 0
    assert "ada/sums was fetched from the Hub for this answer" in capsys.readouterr().err
    assert main([*ask, "--k", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "ada--sums" in said["adapters"]
    assert main(["hub", "--known", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["listed"][0]["fetched"] and said["listed"][0]["verdict"] == "checked"

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["hub"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("The Hub at http://127.0.0.1:9 does not")
    assert main(["hub", "--known"]) == 0 and "ada/poems" in capsys.readouterr().out
    assert main(["hub", "--out", "table.csv"]) == 2
    assert "does not end in .json" in capsys.readouterr().err
