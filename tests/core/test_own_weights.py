"""What a user trains: it goes into the data folder, is found first, and is never written over; and
an evaluation of one's own data asks what there is material for."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lab.evaluation.situations import Crowd, situations_of, tasks_of
from ramole_core import RamoleError, Settings, load_settings
from ramole_core.cli import main
from ramole_core.composition.trained import WeightsFolder, load_trained
from ramole_core.methods import find_row
from ramole_core.weights_here import WeightsHere

CALLS = {
    "_router": "train router --data data --adapters ant,bee",
    "_meteora": "train method meteora --data data --adapters ant,bee",
    "_retriever": "train retriever --data data --tasks ant,bee",
    "_base": "calibrate",
}
FILES = {"_router": "router.safetensors", "_meteora": "meteora.safetensors"}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_what_is_there_is_not_written_over(name, elsewhere, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path))
    folder = tmp_path / "out" if elsewhere else tmp_path / "trained" / name
    folder.mkdir(parents=True)
    kept = folder / FILES.get(name, "kept.json")
    kept.write_text("mine")
    words = [*CALLS[name].split(), *(["--out", str(folder)] if elsewhere else [])]
    assert main(words) == 2
    assert f"{folder} already; add --overwrite to replace them" in capsys.readouterr().err
    assert kept.read_text() == "mine" and [*folder.iterdir()] == [kept]


def test_a_checkpoint_is_no_weights_and_one_s_own_are_found_first(tmp_path):
    settings = Settings(adapters_dir=tmp_path / "pool", data_dir=tmp_path / "data")
    shipped, own = tmp_path / "pool" / "_router", settings.trained_dir / "_router"
    (own / ".checkpoint").mkdir(parents=True)
    assert settings.trained("_router") == shipped
    (own / "router.safetensors").write_bytes(b"mine")
    assert settings.trained("_router") == own and settings.trained("_base").parent == shipped.parent
    row = find_row("ramole")
    weights = WeightsFolder(settings.adapters_dir, own=settings.trained_dir)
    assert weights.checksums().keys() == {"ramole"}
    with pytest.raises(RamoleError, match="data/trained/_router cannot be read"):
        weights.get(row, needed=True)
    here = WeightsHere(settings.adapters_dir, base_model="x", data_dir=settings.data_dir)
    assert here.answers(row) and not here.answers(find_row("meteora"))


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("RAMOLE_MAX_UPLOADS_MB", "RAMOLE_MAX_UPLOADS_MB; did you mean RAMOLE_MAX_UPLOAD_MB?"),
        ("RAMOLE_QUANTISATION", "did you mean RAMOLE_QUANTIZATION?"),
        ("RAMOLE_XYZZY", "no setting RAMOLE_XYZZY; `doctor` lists all."),
    ],
)
def test_a_mistyped_setting_names_the_nearest(variable, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(RamoleError, match=sentence.replace("?", r"\?")):
        load_settings()
    monkeypatch.delenv(variable)
    Path(".env").write_text(f"HF_TOKEN=x\n{variable}=1\n", encoding="utf-8")
    with pytest.raises(RamoleError, match=variable):
        Settings()
    Path(".env").write_text("HF_TOKEN=x\nRAMOLE_MAX_BATCH=3\n", encoding="utf-8")
    monkeypatch.setenv("RAMOLE_URL", "http://127.0.0.1:1")  # the command line's own
    assert load_settings().max_batch == 3
    with pytest.raises(RamoleError, match="no setting quantisation; did you mean quantization"):
        Settings(**{"quantisation": "none"})


def task(data: Path, name: str) -> None:
    (data / name).mkdir(parents=True)
    row = json.dumps({"inputs": "a", "targets": "b", "metric": "em"})
    for split in ("train", "dev"):
        (data / name / f"{split}.jsonl").write_text(row + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("adapters", "possible"),
    [
        ({"ant", "bee", "mine"}, ["iid", "ood"]),
        ({"ant", "bee"}, ["iid"]),  # nobody's rows: no adapter of their own is there to be hidden
        ({"mine"}, ["iid"]),  # a pool of one: without it nothing is left
    ],
)
def test_one_s_own_task_is_asked_in_what_it_has_material_for(
    tmp_path, monkeypatch, adapters, possible
):
    written = [SimpleNamespace(adapter="ant")]
    monkeypatch.setattr("lab.evaluation.situations.read_phrased", lambda: written)
    task(tmp_path, "mine")
    crowd, told = Crowd(("ant", "bee"), ()), []
    every = ["iid", "ood", "crowded", "phrased", "open"]
    asked = situations_of(every, tmp_path, crowd, ["mine"], adapters=adapters, told=told.append)
    assert asked == possible and all(name in told[0] for name in {*every} - {*possible})
    for name in crowd.samples:
        task(tmp_path, name)
    whole = situations_of(every, tmp_path, crowd, ["mine"], adapters=adapters, told=told.append)
    assert whole == every and len(told) == 1
    one = Crowd(("mine",), ())  # a pool and data of one's own, that have each other's all
    asked = situations_of(every, tmp_path, one, ["mine"], adapters={"mine"}, told=told.append)
    assert asked == ["iid"]


def test_rows_that_are_not_there_are_said_with_where_they_come_from(tmp_path):
    with pytest.raises(RamoleError, match="has rows of none .* `python -m lab sources` says where"):
        tasks_of(tmp_path, ["ant", "bee"], situations=[])
    assert tasks_of(tmp_path, ["ant", "bee"], situations=["phrased"]) == []
    task(tmp_path, "bee")
    assert tasks_of(tmp_path, ["ant", "bee"], situations=[]) == ["bee"]


def test_every_sample_adapter_says_where_its_rows_come_from(capsys):
    from lab.sources import main as sources

    sources(as_json=True)
    told = json.loads(capsys.readouterr().out)["tasks"]
    pool = Settings().adapters_dir
    assert told.keys() == {path.parent.name for path in pool.glob("[!_]*/adapter_config.json")}
    assert all(one["source"] and one["licence"] for one in told.values())


def test_weights_that_are_not_finite_are_refused(tmp_path):
    (tmp_path / "meteora_config.json").write_text("{}")
    tensors = {"q.W": torch.tensor([[0.5, float("nan")]])}
    save_file(tensors, tmp_path / "meteora.safetensors")
    with pytest.raises(RamoleError, match=r"not finite \(q.W\); restore them, or train meteora"):
        load_trained(tmp_path, find_row("meteora"))


def test_a_folder_in_the_home_may_be_written_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names = ("data_dir", "adapters_dir", "keys_file")
    said = "".join(f"RAMOLE_{name.upper()}=~/{name}\n" for name in names)
    Path(".env").write_text(said, encoding="utf-8")
    settings = load_settings()
    for name in names:
        assert getattr(settings, name) == tmp_path / "home" / name
    monkeypatch.setenv("RAMOLE_DATA_DIR", "~nobody-here/data")
    with pytest.raises(RamoleError, match="RAMOLE_DATA_DIR='~nobody-here/data': .*home"):
        load_settings()
