"""The retriever's metric: words beside the encoder, shrunk where inputs of one task differ."""

import json
import sys
from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
from pytest import approx

from lab.evaluation.retriever_places import WAYS, Places, Remembered, Tuner, summarise
from ramole_core import RamoleError
from ramole_core.retrieval.encoder import Encoder
from ramole_core.retrieval.metric import BUCKETS, METRIC, Metric, inverse_frequencies, word_vectors
from ramole_core.retrieval.tuning import RECORD, read_tuning
from ramole_core.training.loop import TrainingRun
from ramole_core.training.recipe import MetricRecipe, RetrieverRecipe, Schedule
from ramole_core.training.retriever import train_retriever
from ramole_core.training.retriever_metric import fit_metric
from tests.support.tiny_encoder import COLOURS, SONGS, write_encoder

RECIPE = RetrieverRecipe(
    rank=2, alpha=4.0, tasks=2, schedule=Schedule(steps=2, batch_rows=8, learning_rate=1e-2)
)
EVEN = np.ones(BUCKETS, np.float32)
TEXTS = {
    "colour": [f"say {c} {n} please" for c in COLOURS for n in range(3)],
    "song": [f"sing {s} {n} now" for s in SONGS for n in range(3)],
}
ASKED = [text for rows in TEXTS.values() for text in rows[:3]] + ["", "unheard " * 40, "7 8 7 8"]


def bags(text: str) -> dict[str, int]:
    """Words and pairs of a text of plain words, counted by hand."""
    words = text.split()
    everything = words + [f"{a} {b}" for a, b in zip(words, words[1:], strict=False)]
    return {word: everything.count(word) for word in everything}


def test_a_dot_product_is_that_of_the_bags():
    a, b = "the red fox saw the red hen", "a hen saw the red red sky"
    rows = word_vectors([a, b], EVEN, d=1 << 16)  # so wide that nothing meets
    one, two = ({w: 1 + np.log(n) for w, n in bags(text).items()} for text in (a, b))
    dot = sum(x * two.get(word, 0) for word, x in one.items())
    lengths = [np.sqrt(sum(x * x for x in bag.values())) for bag in (one, two)]
    assert float(rows[0] @ rows[1]) == approx(dot / lengths[0] / lengths[1], abs=1e-5)
    assert word_vectors(["The RED fox"], EVEN, d=64) == approx(
        word_vectors(["the red fox"], EVEN, d=64)
    )


def test_hashing_adds_no_more_than_noise():
    texts = [" ".join(f"w{t}x{n}" for n in range(30)) for t in range(40)]
    rows = word_vectors(texts, EVEN, d=1024)
    others = (rows @ rows.T)[~np.eye(40, dtype=bool)]
    assert abs(others.mean()) < 0.01 and others.std() == approx(1 / 32, rel=0.3)


def test_rare_words_weigh_more():
    idf = inverse_frequencies([f"the word{n}" for n in range(9)] + ["the end"])
    alone = word_vectors(["the", "end"], idf, d=4096)
    both = word_vectors(["the end"], idf, d=4096)[0]
    assert both @ alone[1] > both @ alone[0] > 0
    ratio = (both @ alone[1]) / (both @ alone[0])
    assert ratio == approx((np.log(11 / 2) + 1) / (np.log(11 / 11) + 1), rel=1e-5)


def test_what_varies_within_tasks_is_shrunk_in_tasks_that_were_not_seen():
    random = np.random.default_rng(5)
    d, noise = 12, np.ones(12)
    noise[:4] = 9.0  # what inputs of any task differ in

    def draw(tasks: int, rows: int) -> np.ndarray:
        x = random.normal(size=(tasks, 1, d)) + 0.3 * noise * random.normal(size=(tasks, rows, d))
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    held = dict(zip("abcdef", draw(6, 20), strict=True))
    recipe = MetricRecipe(shrink=0.1, share=0.0, words=4)
    metric = fit_metric(lambda names: held[names[0][0]], {n: [n, n + n] for n in held}, recipe)
    new = draw(30, 12)
    own = np.repeat(np.arange(30), 4)

    def found(rows: np.ndarray) -> float:
        pool = rows[:, :8].mean(1)
        scores = (
            rows[:, 8:].reshape(-1, rows.shape[-1])
            @ (pool / np.linalg.norm(pool, axis=1, keepdims=True)).T
        )
        return float((scores.argmax(1) == own).mean())

    flat = new.reshape(-1, d).astype(np.float32)
    assert found(metric(flat, [""] * len(flat)).reshape(30, 12, -1)) > found(new) + 0.1


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    train_retriever(RECIPE, texts=TEXTS, run=TrainingRun(folder), source=str(source))
    return folder


def test_what_is_served_is_the_mixture_of_two_cosines(source, tuned, tmp_path):
    plain = Encoder(str(source), data_dir=tmp_path)
    served = Encoder(str(source), data_dir=tmp_path, adapter=tuned)
    tuning = read_tuning(tuned)
    assert tuning is not None and tuning.metric is not None
    metric = tuning.metric
    dense = served.dense(ASKED, window=RECIPE.window) @ metric.matrix
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    words = word_vectors(ASKED, metric.idf, d=1024)
    rows = served.embed(ASKED)
    assert served.tuned and served.checksum != plain.checksum
    assert np.linalg.norm(rows, axis=1) == approx(1, abs=1e-5)
    worded = [n for n, text in enumerate(ASKED) if text]
    mixed = 0.4 * dense @ dense.T + 0.6 * words @ words.T
    assert np.abs(rows @ rows.T - mixed)[np.ix_(worded, worded)].max() < 2e-3  # float16 on disk
    assert np.abs(rows - np.concatenate([served.embed([t]) for t in ASKED])).max() < 1e-5
    assert served.embed([]).shape == (0, rows.shape[1])
    record = json.loads((tuned / RECORD).read_text())
    assert record["trained_on"] == {name: len(texts) for name, texts in TEXTS.items()}


@pytest.mark.parametrize("damage", ["record", "bytes", "missing"])
def test_a_broken_metric_gets_a_sentence(damage, source, tuned, tmp_path):
    for name in (METRIC, RECORD):
        (tmp_path / name).write_bytes((tuned / name).read_bytes())
    if damage == "record":
        held = json.loads((tmp_path / RECORD).read_text())
        held["metric"]["words"] = 1000
        (tmp_path / RECORD).write_text(json.dumps(held))
    elif damage == "bytes":
        (tmp_path / METRIC).write_bytes(b"garbage")
    else:
        (tmp_path / RECORD).unlink()
    with pytest.raises(RamoleError, match="rain the retriever anew"):
        Encoder(str(source), data_dir=tmp_path, adapter=tmp_path).embed(["a"])


def test_a_metric_of_another_dimension_is_refused():
    metric = Metric(np.eye(3, dtype=np.float32), EVEN, 0.5, 64)
    with pytest.raises(RamoleError, match="dimension 3, and the encoder's have 4"):
        metric(np.ones((1, 4), np.float32), ["a"])


def test_inputs_that_no_metric_can_be_fitted_to_are_refused():
    with pytest.raises(RamoleError, match="No task has two inputs"):
        fit_metric(lambda rows: np.ones((len(rows), 2)), {"once": ["a"]}, MetricRecipe())
    random = np.random.default_rng(3)
    rows = random.normal(size=(5, 9)).astype(np.float32)
    texts = {"a": [f"say {n}" for n in range(5)]}
    with pytest.raises(RamoleError, match=r"--shrink is 0.*give a larger one"):
        fit_metric(lambda _: rows, texts, MetricRecipe(shrink=0.0))
    matrix = fit_metric(lambda _: rows, texts, MetricRecipe(shrink=0.1)).matrix
    assert np.isfinite(matrix.astype(np.float16)).all()
    with pytest.raises(RamoleError, match="all inputs of a task have the same vector"):
        fit_metric(lambda _: np.ones((5, 9), np.float32), texts, MetricRecipe())


@pytest.mark.parametrize(
    "wrong", [{"shrink": 1.5}, {"share": 1.0}, {"words": 1000}, {"words": 1}, {"rows": 1}]
)
def test_a_recipe_that_cannot_be_fitted_is_refused(wrong):
    with pytest.raises(RamoleError, match="parts of 1|power of two|do not vary"):
        MetricRecipe(**wrong)


def test_the_table_trains_once_and_takes_the_parts_apart(tmp_path, monkeypatch):
    plain = Encoder(data_dir=tmp_path)  # MiniLM: `Tuner` tunes the packaged encoder
    untuned = Remembered(lambda rows: plain.dense(rows, window=RECIPE.window))
    tuner = Tuner(tmp_path, recipe=RECIPE, untuned=untuned, data_dir=tmp_path)
    ways = tuner.ways("run", TEXTS, seed=3)
    served, lora, metric = (ways[way](ASKED) for way in WAYS)
    folder = tmp_path / "run"
    assert np.abs(served - Encoder(data_dir=tmp_path, adapter=folder).embed(ASKED)).max() < 1e-5
    assert np.abs(lora - untuned(ASKED)).max() > 1e-3, "the LoRA changes the vectors"
    assert metric.shape == served.shape and np.abs(metric - served).max() > 1e-3
    written = (folder / RECORD).stat().st_mtime_ns
    tuner.ways("run", TEXTS, seed=3)
    assert (folder / RECORD).stat().st_mtime_ns == written
    trains = Mock(side_effect=StopIteration)
    monkeypatch.setattr(sys.modules[Tuner.__module__], "train_retriever", trains)
    with pytest.raises(StopIteration):
        tuner.ways("run", TEXTS, seed=4)
    assert trains.call_args.args[0].schedule.seed == 4, "another recipe is trained anew"


def test_the_table_embeds_a_text_once():
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    remembered = Remembered(embed)
    assert remembered(["a", "bbb", "a"])[:, 0].tolist() == [1, 3, 1]
    assert remembered(["cc", "bbb"])[:, 0].tolist() == [2, 3]
    assert asked == ["a", "bbb", "cc"]


def test_merged_twins_count_as_one_and_another_task_does_not():
    spots = {"anli_r1": 0.0, "anli_r2": 0.2, "rte": 1.5}

    def embed(texts: Sequence[str]) -> np.ndarray:
        angles = [spots[text] if text in spots else float(text) for text in texts]
        return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)

    prompts = [{"task": "anli_r1", "inputs": x} for x in ("0.15", "1.2")]
    places = Places.measure(embed, {name: [name] for name in spots}, prompts)
    assert (places.plain.tolist(), places.merged.tolist()) == ([1, 2], [0, 1])
    assert Places.read(places.write()).merged.tolist() == [0, 1]


def test_top_k_has_an_interval_over_tasks_beside_the_one_over_prompts():
    tasks = ["a"] * 30 + ["b"] * 30 + ["c"] * 30
    places = Places([0] * 60 + [9] * 30, [0] * 90)  # c's own adapter is never first
    seen = np.arange(90) < 60
    found = summarise([places], [np.ones(90, bool)], tasks=tasks)["plain"]["top1"]
    assert found["mean"] == pytest.approx(66.67) and found["tasks"] == [0, 100]
    assert 50 < found["interval"][0] < 66 < found["interval"][1] < 80
    left = summarise([places], [seen], tasks=tasks)["plain"]["top1"]
    assert left["mean"] == 100 and left["tasks"] == [100, 100], "only tasks that are seen are drawn"
