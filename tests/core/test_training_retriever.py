"""The retriever's training: its loss, its window, and that what is served is what was trained."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from ramole_core.errors import RamoleError
from ramole_core.retrieval import INSTRUCTION, Encoder
from ramole_core.retrieval.metric import METRIC
from ramole_core.retrieval.model_files import find_model
from ramole_core.retrieval.tuning import RECORD, Window, read_tuning, spans_of
from ramole_core.training import command
from ramole_core.training.loop import TrainingRun
from ramole_core.training.recipe import RetrieverRecipe, Schedule
from ramole_core.training.retriever import (
    contrast,
    draw,
    measure_tasks,
    read_texts,
    train_retriever,
)
from ramole_core.training.retriever_metric import fit_metric
from tests.support.tiny_encoder import COLOURS, SONGS, write_encoder

RECIPE = RetrieverRecipe(
    rank=3,
    alpha=6.0,
    window=Window(5, 4),
    tasks=3,
    schedule=Schedule(steps=12, batch_rows=15, learning_rate=2e-2, warmup=2, evaluate_every=6),
)
TEXTS = {
    "colour": tuple(f"say {c} {n} please" for c in COLOURS for n in range(5)),
    "song": tuple(f"sing {s} {n} now" for s in SONGS for n in range(5)),
    "long": tuple(f"{n} {COLOURS[n % 4]} 7 7 7 7 7 7 7 7 8 {SONGS[n % 3]}" for n in range(6)),
}
ASKED = [text for rows in TEXTS.values() for text in rows[:4]] + ["", "unheard of " * 40]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    train_retriever(RECIPE, texts=TEXTS, run=TrainingRun(folder, "as typed"), source=str(source))
    return folder


def test_the_loss_is_the_loop_over_inputs_and_tasks() -> None:
    rows = torch.nn.functional.normalize(torch.randn(4, 3, 7, dtype=torch.float64), dim=-1)
    losses = []
    for t in range(4):
        for j in range(3):
            scores = []
            for s in range(4):
                group = [rows[s, i] for i in range(3) if (s, i) != (t, j)]
                centre = sum(group) / len(group)
                scores.append(float(rows[t, j] @ centre / centre.norm()) / 0.07)
            losses.append(np.log(np.exp(scores).sum()) - scores[t])
    assert float(contrast(rows, temperature=0.07)) == pytest.approx(np.mean(losses), rel=1e-12)


def test_with_two_inputs_a_task_the_positive_is_the_other_one() -> None:
    rows = torch.nn.functional.normalize(torch.randn(2, 2, 5), dim=-1)
    near = rows.clone()
    near[:, 1] = near[:, 0]  # each input's positive is itself
    assert contrast(near, temperature=0.1) < contrast(rows, temperature=0.1)


def test_draws_are_a_function_of_the_step() -> None:
    drawn = draw(TEXTS, RECIPE, step=4)
    assert drawn == draw(TEXTS, RECIPE, step=4) != draw(TEXTS, RECIPE, step=5)
    assert [len(set(rows)) for rows in drawn] == [5, 5, 5]
    assert len(draw(TEXTS, replace(RECIPE, tasks=2), step=0)) == 2


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        (Window(2, 3), ["say red 3 4 now", "say red 1 2 3", "", "x x x x now"]),
        (Window(3, 0), ["say red 1", "say red 1", "", "x x x"]),
        (Window(0, 3), ["3 4 now", "1 2 3", "", "x x now"]),
    ],
)
def test_a_window_keeps_its_ends(source: Path, window: Window, kept: list[str]) -> None:
    spans = spans_of(AutoTokenizer.from_pretrained(source))
    texts = ["say red 1 2 3 4 now", "say red 1 2 3", "", "x " * 30_000 + "now"]
    assert window.cut(texts, spans) == kept == window.cut(kept, spans)
    assert window.cut([], spans) == []


@pytest.mark.parametrize("ends", [(0, 0), (-1, 40), (40, -1)])
def test_a_window_that_reads_nothing_is_refused(ends: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(RamoleError, match="0 or more at each end, and 1 or more in all"):
        Window(*ends)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    said = {"window": dict(zip(("head", "tail"), ends, strict=True)), "encoder_checksum": "x"}
    (tmp_path / RECORD).write_text(json.dumps(said))
    with pytest.raises(RamoleError, match=f"{RECORD} cannot be used"):
        read_tuning(tmp_path)
    (tmp_path / RECORD).write_text(json.dumps(said | {"window": {"head": 7, "tail": 0}}))
    tuning = read_tuning(tmp_path)
    assert tuning is not None and tuning.window == Window(7, 0), "one end alone is read"


def test_the_metric_is_fitted_to_the_tuned_vectors(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    encoder = Encoder(str(source), data_dir=tmp_path, adapter=tuned)
    metric = fit_metric(
        lambda rows: encoder.dense(rows, window=RECIPE.window), TEXTS, RECIPE.metric
    )
    tuning = read_tuning(tuned)
    assert tuning is not None and tuning.metric is not None
    untuned = Encoder(str(source), data_dir=tmp_path)
    other = fit_metric(lambda rows: untuned.dense(rows, window=RECIPE.window), TEXTS, RECIPE.metric)
    # trained in bfloat16, kept in float16
    assert np.abs(tuning.metric.matrix - metric.matrix).max() < 0.05
    assert np.abs(tuning.metric.matrix - other.matrix).max() > 0.1


def test_a_run_learns_and_leaves_a_small_folder(source: Path, tuned: Path, tmp_path: Path) -> None:
    assert {path.name for path in tuned.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        METRIC,
        RECORD,
    }
    record = json.loads((tuned / RECORD).read_text())
    losses = record["train_losses"]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    assert record["trained_on"] == {"colour": 20, "song": 20, "long": 6}
    assert (record["command"], record["window"]) == ("as typed", {"head": 5, "tail": 4})
    measured = {"examples": TEXTS, "prompts": TEXTS, "tuned": ["colour", "song"]}
    before = measure_tasks(Encoder(str(source), data_dir=tmp_path).embed, **measured)
    after = measure_tasks(Encoder(str(source), data_dir=tmp_path, adapter=tuned).embed, **measured)
    assert set(after) == {"loss", "tuned_top1", "tuned_top3", "unseen_top1", "unseen_top3"}
    assert after["loss"] < before["loss"]
    assert after["tuned_top1"] == 100 > before["tuned_top1"]


def test_what_is_served_is_what_peft_computes(source: Path, tuned: Path, tmp_path: Path) -> None:
    encoder = Encoder(str(source), data_dir=tmp_path, adapter=tuned)
    plain = Encoder(str(source), data_dir=tmp_path)
    rows = encoder.dense(ASKED, window=RECIPE.window)
    assert encoder.tuned and not plain.tuned and encoder.checksum != plain.checksum
    assert np.abs(rows - plain.dense(ASKED, window=RECIPE.window)).max() > 0.1
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(source), str(tuned)).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    for text, row in zip(Window(5, 4).cut(ASKED, spans_of(tokenizer)), rows, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(INSTRUCTION + text, return_tensors="pt")).last_hidden_state
        mean = hidden[0].mean(0)
        assert np.abs(row - (mean / mean.norm()).numpy()).max() < 1e-5
    served = encoder.embed(ASKED)
    alone = np.concatenate([encoder.embed([text]) for text in ASKED])
    assert np.abs(served - alone).max() < 1e-5
    tuning = read_tuning(tuned)
    assert tuning is not None and tuning.metric is not None
    assert np.abs(served - tuning.metric(rows, ASKED)).max() < 1e-6


def test_a_tuning_of_another_encoder_or_of_none_changes_nothing(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    plain = Encoder(data_dir=tmp_path)  # MiniLM
    for adapter in (tuned, tmp_path / "nowhere"):
        encoder = Encoder(data_dir=tmp_path, adapter=adapter)
        assert not encoder.tuned and encoder.checksum == plain.checksum
        assert np.array_equal(encoder.embed(["a"]), plain.embed(["a"]))


@pytest.mark.parametrize("damage", ["[]", '{"window": {"head": 0, "tail": 4}}', "not json"])
def test_a_broken_record_gets_a_sentence(
    damage: str, source: Path, tuned: Path, tmp_path: Path
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((tuned / name).read_bytes())
    (tmp_path / RECORD).write_text(damage)
    with pytest.raises(RamoleError, match=f"{RECORD} cannot be read .*train the retriever anew"):
        Encoder(str(source), data_dir=tmp_path, adapter=tmp_path).embed(["a"])


def test_one_task_is_refused(source: Path, tmp_path: Path) -> None:
    texts = {"colour": TEXTS["colour"], "once": ("say red",)}
    with pytest.raises(RamoleError, match="and 1 of those given have two inputs or more"):
        train_retriever(RECIPE, texts=texts, run=TrainingRun(tmp_path), source=str(source))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"temperature": 0.0}, {"tasks": 1}, {"tasks": 9}])
def test_a_recipe_that_contradicts_itself_is_refused(wrong: dict) -> None:
    with pytest.raises(RamoleError, match="raise them|two texts of each"):
        replace(RECIPE, **wrong)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in TEXTS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for part, held in (("train", rows[:-2]), ("dev", rows[-2:])):
            lines = [json.dumps({"inputs": text, "targets": "x"}) for text in held]
            (tmp_path / "data" / name / f"{part}.jsonl").write_text("\n".join(lines))
    return tmp_path / "data"


def test_twins_are_read_as_one_task(data: Path) -> None:
    texts = read_texts(data, "colour+song, long", rows=30, seed=0)
    assert {name: len(rows) for name, rows in texts.train.items()} == {"colour+song": 30, "long": 4}
    assert set(texts.train["colour+song"]) <= {*TEXTS["colour"], *TEXTS["song"]}
    assert len(texts.examples["colour+song"]) == 20 and len(texts.dev["long"]) == 2
    with pytest.raises(RamoleError, match="nothing.*was not found"):
        read_texts(data, "nothing", rows=5, seed=0)
    with pytest.raises(RamoleError, match="at least 2"):
        read_texts(data, "long", rows=1, seed=0)


def test_the_command_writes_a_tuning(
    source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "kept" / "trained" / "_retriever"
    words = ["retriever", "--data", str(data), "--tasks", "colour,song", "--unseen", "long"]
    words += ["--steps", "2", "--batch-rows", "6", "--tasks-a-step", "2", "--head", "5"]
    monkeypatch.setenv("RAMOLE_ENCODER", str(source))
    monkeypatch.setenv("RAMOLE_ADAPTERS_DIR", str(tmp_path / "adapters"))
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(sys, "argv", ["ramole_core", "train", *words])
    done = CliRunner().invoke(command.train_app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["folder"] == str(out) and answer["tasks"] == ["colour", "song"]
    assert [entry["step"] for entry in answer["dev"]] == [0, 2]
    assert "unseen_top1" in answer["dev"][0]
    record = json.loads((out / RECORD).read_text())
    assert record["command"].startswith("python -m ramole_core train retriever --data ")
    assert str(tmp_path) not in json.dumps(record["encoder_checksum"])
    assert Encoder(str(source), data_dir=tmp_path, adapter=out).tuned


def test_the_shipped_tuning_is_small_and_of_minilm(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "adapters" / "_retriever"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.5e6
    encoder = Encoder(data_dir=tmp_path, adapter=folder)
    assert encoder.tuned and find_model(encoder.source, download_dir=tmp_path).is_dir()
    sql, mood, asked = encoder.embed(
        ["SQL for: how many singers are there?", "Is this review positive or negative? dull", "sql"]
    )
    assert asked @ sql > asked @ mood
