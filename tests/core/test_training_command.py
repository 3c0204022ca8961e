"""The training commands, and what they leave beside the tensors."""

import hashlib
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ramole_core import cli
from ramole_core.errors import RamoleError
from ramole_core.pool.examples_and_readme import (
    MAX_EXAMPLE,
    parse_readme,
    read_example_file,
    write_examples,
)
from ramole_core.settings import holds_weights
from ramole_core.training import command, options, sources, weights_folder
from ramole_core.training.card import card_text, draw_examples, span
from ramole_core.training.checkpoint import Progress
from ramole_core.training.options import command_line
from ramole_core.training.rows import Row, Task
from tests.support.tiny_training import build_base
from ui.pool.declared import examples_from_file

WORDS = ("--steps", "3", "--batch-rows", "4", "--rank", "2", "--modules", "q_proj,mlp")


@pytest.fixture
def base(tmp_path, monkeypatch):
    tiny = build_base(torch.float32, tmp_path)
    monkeypatch.setattr(sources, "load_configured_base", lambda *_: tiny)
    return tiny


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "colours"
    folder.mkdir(parents=True)
    for part, count in (("train", 29), ("dev", 4)):
        rows = [{"inputs": f"say {part} red {n}", "targets": f"red {n % 5}"} for n in range(count)]
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def example_texts(folder):
    lines = (folder / "examples.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture
def train(monkeypatch):
    """Run the command with these words."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ramole_core", "train", *words])
        return CliRunner().invoke(command.train_app, list(words))

    return run


@pytest.fixture
def adapter(train, data):
    """Train an adapter on the data into the folder `out`."""
    first = ("adapter", "--data", str(data), *WORDS)
    return lambda out, *words: train(*first, "--out", str(out), *words)


def is_refused(result, sentence):
    return isinstance(result.exception, RamoleError) and sentence in str(result.exception)


def test_weights_that_are_there_are_replaced_where_that_is_said_alone(base, adapter, tmp_path):
    out = tmp_path / "colours"
    out.mkdir()
    (out / "examples.jsonl").write_text('{"text": "say red"}\n')
    assert adapter(out).exit_code == 0
    before = (out / "adapter_model.safetensors").read_bytes()
    assert is_refused(adapter(out, "--seed", "5"), "--overwrite")
    assert (out / "adapter_model.safetensors").read_bytes() == before
    assert adapter(out, "--seed", "5", "--overwrite").exit_code == 0
    assert (out / "adapter_model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--alpha", "64"], "has alpha 4, the one to be trained alpha 64"),
        (["--rslora"], "the one to be trained alpha 4, rslora"),
    ],
)
def test_weights_to_begin_with_have_the_same_scale(base, adapter, tmp_path, words, sentence):
    out = tmp_path / "a"
    assert adapter(out).exit_code == 0
    assert is_refused(adapter(tmp_path / "b", "--start", str(out), *words), sentence)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--layers", "20-10"], "--layers 20-10 is not understood"),
        (["--layers", "all"], "write 10-29"),
        (["--rank", "0"], "rank 0"),
        (["--until", "soon"], "write 400 or '3 epochs'"),
        (["--layers", "0-"], "--layers 0- is not understood; write 10-29"),
        (["--measure-every", "0"], "--measure-every is 0; it must be at least 1"),
        (["--dev-rows", "0"], "--dev-rows is 0; it must be at least 1"),
        (["--dev-rows", "-1"], "--dev-rows is -1; it must be at least 1"),
        (["--batch-rows", "0"], "--batch-rows is 0; it must be at least 1"),
        (["--layers", "0,9"], "has layers 0 to 1, not 9"),
        (["--modules", "lm_head"], "no linear module lm_head; choose from down_proj"),
        (["--modules", "self_attn"], "no linear module self_attn"),
        (["--alpha", "nan"], "must both be positive numbers"),
    ],
)
def test_what_cannot_be_trained_is_said_before_it_is(base, adapter, tmp_path, words, sentence):
    assert is_refused(adapter(tmp_path / "a", *words), sentence)


def test_an_adapter_is_trained_with_its_card_examples_and_manifest(base, data, adapter, tmp_path):
    out = tmp_path / "pool" / "colours"
    result = adapter(out, "--licence", "mit", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["name"], answer["base_checksum"]) == ("colours", base.checksum)
    assert [entry["step"] for entry in answer["dev_losses"]] == [0, 3]
    files = "README.md adapter_config.json adapter_model.safetensors examples.jsonl manifest.json"
    assert sorted(path.name for path in out.iterdir()) == [*files.split(), "train.json"]
    record = json.loads((out / "train.json").read_text())
    told = f"python -m ramole_core train adapter --data data/{data.name} "
    assert record["command"].startswith(told)
    assert record["data"]["train_rows"] == 29 and record["schedule"]["seed"] == 0
    texts = example_texts(out)
    assert len(set(texts)) == 20 and all(text.startswith("say train red") for text in texts)
    licence, description, _ = parse_readme((out / "README.md").read_bytes())
    assert licence == "mit" and "colours" in description
    assert record["command"] in (out / "README.md").read_text()


def test_a_card_counts_the_rows_that_were_read(base, data, adapter, tmp_path):
    for part, count in (("train", 3), ("dev", 1)):
        long = [json.dumps({"inputs": "say red " * 40, "targets": "red"}) for _ in range(count)]
        file = data / f"{part}.jsonl"
        file.write_text("\n".join([*long, *file.read_text().splitlines()]))
    out = tmp_path / "a"
    assert adapter(out, "--max-tokens", "60").exit_code == 0
    counts = {"name": "colours", "train_rows": 29, "dev_rows": 4, "metric": "rouge"}
    assert json.loads((out / "train.json").read_text())["data"] == counts
    card = (out / "README.md").read_text()
    assert "`colours`, 29 rows for training" in card and "(nats a token, 4 rows)" in card
    assert "The base was not quantised in training" in card
    assert "quantised before training" not in card


def test_own_examples_and_a_description_take_the_place_of_the_datas(base, adapter, tmp_path):
    own, about = tmp_path / "own.jsonl", tmp_path / "about.txt"
    own.write_text("\n".join(json.dumps({"text": f"paint it {n}"}) for n in range(25)))
    about.write_text("Names colours.")
    out = tmp_path / "a"
    adapter(out, "--examples", str(own), "--description", str(about), "--licence", "mit")
    result = adapter(tmp_path / "b", "--start", str(out))
    assert result.exit_code == 0, result.output
    for folder in (out, tmp_path / "b"):  # a training that goes on from it keeps its card
        assert example_texts(folder) == [f"paint it {n}" for n in range(20)]
        licence, description, _ = parse_readme((folder / "README.md").read_bytes())
        assert licence == "mit" and "Names colours." in description


def test_a_run_pauses_resumes_and_ends_by_patience(base, adapter, tmp_path):
    out = tmp_path / "a"
    words = ["--until", "3 epochs", "--patience", "2", "--measure-every", "1"]
    words += ["--learning-rate", "0.9"]
    results = [adapter(out, *words, "--minutes", "0.000001", "--json") for _ in range(2)]
    for step, result in enumerate(results, 1):
        assert result.exit_code == 0, result.output
        assert f"Paused after step {step} of 24; resume with the same command." in result.stderr
        assert json.loads(result.stdout) == {"paused": True, "step": step, "steps": 24}
    result = adapter(out, *words)
    assert result.exit_code == 0 and "step 2  dev loss: adapter" in result.output
    record = json.loads((out / "train.json").read_text())
    losses = [one["adapter"] for one in record["dev_losses"]]
    assert len(losses) == record["kept_step"] + 3 < 25
    assert losses.index(min(losses)) == record["kept_step"]
    assert "--patience 2" in record["command"] and "--minutes" not in record["command"]
    card = (out / "README.md").read_text()
    assert f"{record['kept_step']} steps of 4 rows" in card
    assert f"{losses[0]:.3f} before, {min(losses):.3f} after" in card


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("moved", [1, 4])
def test_a_run_that_is_killed_while_its_files_are_put_in_place_is_taken_up(
    moved, before, base, adapter, tmp_path, monkeypatch
):
    out, whole = tmp_path / "a", tmp_path / "whole"
    if before:
        assert adapter(out).exit_code == 0
    assert adapter(whole, "--seed", "5").exit_code == 0
    replace_file, files = os.replace, []

    def killed(file, place):
        if Path(place).parent == out:
            if len(files) == moved:
                raise KeyboardInterrupt
            files.append(place)
        replace_file(file, place)

    with monkeypatch.context() as patch:
        patch.setattr(weights_folder.os, "replace", killed)
        overwrite = ["--overwrite"] if before else []
        assert adapter(out, "--seed", "5", *overwrite).exit_code != 0
    assert len(files) == moved and not holds_weights(out)
    result = adapter(out, "--seed", "5")
    assert result.exit_code == 0, result.output
    assert holds_weights(out)
    assert sorted(one.name for one in out.iterdir()) == sorted(one.name for one in whole.iterdir())
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_the_base_may_be_quantised_otherwise_than_it_is_served(adapter, tmp_path, monkeypatch):
    tiny = build_base(torch.float32, tmp_path)
    monkeypatch.setattr(
        sources,
        "load_base",
        lambda name, **given: replace(tiny, quantization=given["quantization"]),
    )
    monkeypatch.setenv("RAMOLE_QUANTIZATION", "int4")
    for given, kind in (((), "int4"), (("--quantization", "none"), "none")):
        out = tmp_path / kind
        result = adapter(out, *given)
        assert result.exit_code == 0, result.output
        assert json.loads((out / "train.json").read_text())["quantization"] == kind
        assert json.loads((out / "train.json").read_text())["dtype"] == "float32"
    wrong = adapter(out, "--quantization", "fp3")
    assert wrong.exit_code == 2 and "nf4" in wrong.output


@pytest.mark.parametrize(
    ("multiplies", "said", "dtype"),
    [(False, None, "float32"), (True, None, "auto"), (False, "bfloat16", "bfloat16")],
)
def test_a_cpu_that_does_not_multiply_bfloat16_trains_in_float32(
    multiplies, said, dtype, tmp_path, monkeypatch
):
    tiny, asked = build_base(torch.float32, tmp_path), []
    monkeypatch.setattr(sources, "MULTIPLIES_BFLOAT16", multiplies)
    monkeypatch.setattr(
        sources, "load_base", lambda name, **given: asked.append(given["dtype"]) or tiny
    )
    monkeypatch.setenv("RAMOLE_DEVICE", "cpu")
    if said:
        monkeypatch.setenv("RAMOLE_DTYPE", said)
    sources.load_configured_base()
    assert asked == [dtype]


def test_what_cannot_be_used_is_one_line_and_exit_2(base, data, tmp_path, capsys):
    for words, said in (
        (("adapter", "--data", str(tmp_path / "no"), "--out", "a"), "was not found"),
        (("adapter", "--data", str(data), "--out", "a", "--minutes", "0"), "leaves no time"),
        (("router", "--data", str(tmp_path), "--adapters", "none"), "was not found"),
    ):
        assert cli.main(["train", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1


@pytest.fixture
def unloaded(monkeypatch):
    monkeypatch.setattr(sources, "load_configured_base", lambda *_: pytest.fail("it was loaded"))


SEVERAL = ("lorauter", "ca_lora", "moe", "llava_mole")
"""Methods that are trained over several adapters."""
TWICE, NONE = ("--adapters", "red,blue,red"), ("--adapters", " , ")


@pytest.mark.parametrize(
    ("method", "words", "sentence"),
    [
        *((method, TWICE, "--adapters names red twice or more") for method in SEVERAL),
        *((method, NONE, "--adapters names none") for method in SEVERAL),
        ("ramole", ["--retrieved", "1"], "retrieved is 1; a gate chooses between two"),
        ("ramole", ["--retrieved", "-2"], "retrieved is -2; a gate chooses between two"),
        ("lorauter", ["--start", "weights"], "lorauter cannot begin with trained weights"),
        ("ca_lora", ["--start", "weights"], "ca_lora cannot begin with trained weights"),
    ],
)
def test_what_a_method_does_not_take_is_said_before_the_base_is_loaded(
    method, words, sentence, unloaded, train, tmp_path
):
    for name in ("red", "blue", "loud"):
        (tmp_path / name).mkdir()
        for part in ("train", "dev"):
            (tmp_path / name / f"{part}.jsonl").write_text('{"inputs": "a", "targets": "b"}')
    first = ("method", method, "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert is_refused(train(*first, "--adapters", "red,blue,loud", *words), sentence)


@pytest.mark.parametrize(
    ("option", "written", "sentence"),
    [
        ("--examples", None, "card.txt; give one that is there"),
        ("--examples", b"\xe9", "card.txt is not UTF-8 text at line 1; save it"),
        ("--examples", b"\n", "card.txt has no example inputs; write one a line"),
        ("--description", None, "card.txt; give one that is there"),
        ("--description", b"Names caf\xe9.", "card.txt is not UTF-8 text at line 1; save it"),
    ],
)
def test_a_card_that_cannot_be_written_is_said_before_the_base_is_loaded(
    option, written, sentence, unloaded, adapter, tmp_path
):
    file = tmp_path / "card.txt"
    if written is not None:
        file.write_bytes(written)
    assert is_refused(adapter(tmp_path / "a", option, str(file)), sentence)


def test_examples_with_any_line_separator_are_read_as_they_were_written(tmp_path):
    texts = ["a\u2028b", "c\x85d", "e\x1cf"]
    write_examples(tmp_path, texts)
    file = tmp_path / "examples.jsonl"
    for coding in ("utf-8", "utf-8-sig"):  # with a byte order mark
        file.write_bytes(file.read_bytes().decode().encode(coding))
        assert read_example_file(file) == texts
        assert examples_from_file(file) == texts


def test_an_input_that_the_pool_would_not_take_is_no_example():
    rows = (Row("a" * (MAX_EXAMPLE + 1), "x"), Row("say red", "RED"))
    assert draw_examples(Task("red", rows, rows, "exact"), seed=0) == ["say red"]


def test_a_loss_that_is_no_number_leaves_the_record_json(base, adapter, tmp_path, monkeypatch):
    losses = [{"step": 0.0, "adapter": math.nan}]
    monkeypatch.setattr(
        "ramole_core.training.adapter.train_adapter", lambda *_, **__: Progress(dev_losses=losses)
    )
    said = adapter(tmp_path / "a", "--json").stdout
    assert json.loads(said, parse_constant=pytest.fail)["dev_losses"][0]["adapter"] is None


def test_a_router_is_trained_over_adapters_of_the_pool(base, data, train, tmp_path, monkeypatch):
    pool = tmp_path / "pool"
    monkeypatch.setenv("RAMOLE_ADAPTERS_DIR", str(pool))
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path / "kept"))
    tasks = data.parent
    (tasks / "tints").symlink_to(data)
    for name, seed in (("colours", "1"), ("tints", "2")):
        words = ("adapter", "--data", str(tasks / name), "--out", str(pool / name), *WORDS)
        assert train(*words, "--seed", seed).exit_code == 0
    words = ("router", "--data", str(tasks), "--adapters", "colours,tints", "--steps", "2")
    result = train(*words, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["adapters"] == ["colours", "tints"]
    made = tmp_path / "kept" / "trained" / "_router"
    weights = (made / "router.safetensors").read_bytes()
    assert answer["router_checksum"] == hashlib.sha256(weights).hexdigest()
    assert set(answer["dev_losses"][-1]) == {"step", "ramole", "uniform", "random"}
    assert {path.name for path in made.iterdir()} == {"router.safetensors", "router_config.json"}


def test_layers_and_modules_are_read_as_a_person_writes_them():
    assert options.read_layers("10-12,3") == (10, 11, 12, 3)
    assert options.read_modules("v_proj, mlp") == ("v_proj", "gate_proj", "up_proj", "down_proj")
    assert span((4, 5, 6)) == "4-6" and span((4, 6)) == "4, 6"
    assert options.read_until("400") == (400, 0.0)
    assert options.read_until("2.5 epochs") == (0, 2.5)
    for words in ("0", "soon", "3 days", "-1 epochs", "inf epochs", "nan epochs"):
        with pytest.raises(RamoleError, match="write 400 or '3 epochs'"):
            options.read_until(words)


def test_a_card_says_what_the_scale_is(base, adapter, tmp_path):
    assert adapter(tmp_path / "a").exit_code == 0
    record = json.loads((tmp_path / "a" / "train.json").read_text())
    record |= {"rank": 4, "alpha": 6.0, "rslora": True, "layers": [7, 8, 9]}
    record["data"]["dev_rows"] = 180
    record["schedule"] |= {"steps": 5, "batch_rows": 3, "dev_rows": 50}
    record["dev_losses"] = [{"step": 0, "adapter": 2.0}, {"step": 5, "adapter": 0.5}]
    text = card_text(record | {"quantization": "nf4"})
    assert "4, 6 (scale 3, rank-stabilised)" in text and "layers 7-9" in text
    assert "The base was quantised before training, so these numbers are those of serving." in text
    assert "(scale 1.5)" in card_text(record | {"rslora": False})
    first, second = record | {"command": "one", "kept_step": 7}, {"command": "two", "kept_step": 4}
    third = {"command": "three", "kept_step": 5, "start": {**second, "start": first}}
    text = card_text(record | third)
    assert "one\ntwo\nthree\n" in text
    assert "5 steps of 3 rows" in text and "after 11 steps of the commands above its own" in text


def test_the_recorded_command_names_no_folder_of_this_machine(monkeypatch):
    words = "ramole train method moe --data /somewhere/data --steps 3 --out=/else/_moe --json"
    monkeypatch.setattr("sys.argv", words.split())
    said = "python -m ramole_core train method moe --data data --steps 3"
    assert command_line() == said
