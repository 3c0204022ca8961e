"""Metrics against worked examples, intervals against known ones, the tables on a tiny model."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lab.evaluation.answers import answer_rows, options_of
from lab.evaluation.dev_table import (
    beats,
    chance_scores,
    commonest_answer,
    compare,
    lines_of,
    measure_adapter,
)
from lab.evaluation.evaluate import read_rows
from lab.evaluation.intervals import bootstrap, bootstrap_groups, paired_difference
from lab.evaluation.metrics import lenient, lenient_match, score
from lab.harness import checksum
from ramole_core.composition import METHODS
from ramole_core.methods import METHOD_LIST
from ramole_core.pool import Pool
from ramole_core.settings import REPOSITORY
from ramole_core.training.rows import Row, Task, render_prompt
from tests.support.tiny_training import build_base


@pytest.fixture
def tiny_base(tmp_path):
    return build_base(torch.float32, tmp_path)


@pytest.mark.parametrize(
    ("answer", "target", "strict", "forgiving"),
    [
        ("Yes.", "yes", 100, 100),
        ("- yes", "yes", 0, 100),
        ('"Yes", because it says so.', "yes", 0, 100),
        ("The answer is: yes", "yes", 0, 100),
        ("1. book flight\n2. time", "book flight", 0, 100),
        ("(b) no", "no", 0, 100),
        ("not yes", "yes", 0, 0),
        ("yesterday", "yes", 0, 0),
        ("no", "yes", 0, 0),
        ("", "yes", 0, 0),
        ("21.33", "21.33", 100, 100),
        ("21", "21.33", 0, 0),
        ("35", "3.5", 0, 0),
        ("3/4", "3", 0, 0),
    ],
)
def test_exact_match_and_its_lenient_form(answer, target, strict, forgiving):
    assert score("em", [answer], [target]) == [strict]
    assert score("em", [answer], [target], forgiving=True) == [forgiving]
    assert lenient_match(answer, target) == forgiving


def test_where_letters_and_marks_are_the_answer_they_count(tmp_path):
    copied, right = "the cat sat on bob", "The cat sat on Bob."
    assert score("rouge", [copied], [right]) == [100.0]
    assert score("marks", [copied], [right])[0] == pytest.approx(200 * 3 / (5 + 6))
    assert score("marks", [right], [right]) == [100.0]
    assert score("rouge", ["WHERE b < 3"], ["WHERE b >= 3"]) == [100.0]
    assert score("marks", ["WHERE b < 3"], ["WHERE b >= 3"])[0] < 80
    assert score("em", [".*[A-Z].*"], [".*[a-z].*"]) == [100.0]
    assert score("exact", [".*[A-Z].*"], [".*[a-z].*"]) == [0.0]
    assert score("exact", [" .*[a-z].* "], [".*[a-z].*"], forgiving=True) == [100.0]
    for name, metric in (("true_case", "marks"), ("nl2regex", "exact"), ("ant", "rouge")):
        (tmp_path / name).mkdir()
        row = {"inputs": "a", "targets": "b", "metric": "rouge"}
        (tmp_path / name / "dev.jsonl").write_text(json.dumps(row))
        assert read_rows(tmp_path, [name], split="dev", count=1)[0].metric == metric


def test_rouge_and_bleu_are_those_of_their_packages():
    assert score("rouge", ["the cat sat"], ["the cat sat"]) == [100.0]
    # 2 of 3 words in order, against 2 of 4: F = 2 * (2/3) * (1/2) / (2/3 + 1/2)
    assert score("rouge", ["the dog sat"], ["the cat sat down"]) == [pytest.approx(400 / 7)]
    assert score("bleu", ["a b c d e"], ["a b c d e"])[0] == pytest.approx(100)
    assert 0 < score("bleu", ["a b c d x y"], ["a b c d e"])[0] < 100


def test_whole_groups_are_drawn_with_all_their_values():
    values, groups = [0.0, 0.0, 0.0, 9.0], ["a", "a", "a", "b"]
    found = bootstrap_groups(values, groups)
    assert (found.mean, found.low, found.high) == (2.25, 0.0, 9.0)  # a alone, b alone
    rows = bootstrap(values)
    assert rows.mean == found.mean and rows.high < found.high
    alone = bootstrap_groups(values, list("abcd"))
    assert (alone.low, alone.high) == (rows.low, rows.high), "groups of one are rows"


def test_lenient_rouge_takes_the_first_line_undressed():
    chatty = "Here it is\nand more and more and more"
    assert lenient("rouge", "- the cat sat\nI hope this helps you", "the cat sat") == 100.0
    assert lenient("rouge", chatty, "Here it is") > score("rouge", [chatty], ["Here it is"])[0]
    assert lenient("rouge", "a whole answer\nin two lines", "a whole answer in two lines") == 100.0


def test_an_interval_is_near_the_normal_one_and_pairs_shrink_it():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = bootstrap(values.tolist())
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    gap = paired_difference((values + 0.5).tolist(), values.tolist())
    assert (gap.low, gap.mean, gap.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def rows(count):
    return tuple(
        Row(f"say red {n % 5}\nOPTIONS:\n- yes\n- no\n- loud", "yes" if n % 4 else "no")
        for n in range(count)
    )


def test_chance_counts_the_options_and_is_absent_without_them():
    assert chance_scores(rows(7)) == [pytest.approx(100 / 3)] * 7
    assert chance_scores((*rows(3), Row("say red", "red"))) is None
    assert commonest_answer(Task("t", rows(9), (), "em")) == "yes"
    assert options_of("- a\nOPTIONS:\n- no\n- not - yes") == ["no", "not - yes"]


def test_an_adapter_must_beat_every_rival():
    dev = rows(8)
    right = [row.targets for row in dev]
    answers = {"base": ["loud"] * 8, "adapter": right, "commonest": ["yes"] * 8}
    entry = {"metric": "em", "scores": compare(answers, dev, metric="em")}
    entry |= {"lenient": entry["scores"]}
    gains = entry["scores"]["gain_over"]
    assert set(gains) == {"base", "chance", "commonest"}
    assert gains["commonest"]["mean"] == 25.0 and beats(entry)
    assert "adapter 100.00 [100.00, 100.00]" in next(lines_of("t", entry))
    answers["adapter"] = ["yes"] * 8
    same = compare(answers, dev, metric="em")
    assert not beats({"scores": same, "lenient": same})
    assert not beats({**entry, "lenient": same})


def test_answers_do_not_depend_on_the_batch(tiny_base):
    prompts = ["say red", "please please please sing blue 5", "loud", "say say 3 4"]
    together = answer_rows(tiny_base.model, tiny_base.tokenizer, prompts, max_new_tokens=6)
    alone = []
    for prompt in prompts:
        ids = torch.tensor([render_prompt(tiny_base.tokenizer, prompt)])
        out = tiny_base.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
        text = tiny_base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        alone.append(text.strip())
    assert together == alone
    assert len(set(together)) > 1


class Answering:
    """Says "loud" where it is given the adapter `shout`, else nothing."""

    pool = SimpleNamespace(card=lambda name: SimpleNamespace(sha256=f"of {name}"))

    def generate(self, requests):
        said = {("selection", ("shout",)): "loud ", ("base", None): ""}
        return [SimpleNamespace(text=said[(one.method, one.adapters)]) for one in requests]


def test_an_entry_of_the_table_is_of_the_adapter_alone_and_the_base():
    dev = tuple(Row(row.inputs, "loud") for row in rows(5))
    entry, answers = measure_adapter("shout", Task("shout", rows(9), dev, "em"), ramole=Answering())
    assert answers["adapter"] == ["loud"] * 5 and answers["commonest"] == ["yes"] * 5
    assert entry["rows"] == 5 and entry["scores"]["adapter"]["mean"] == 100.0
    assert entry["adapter_sha256"] == "of shout" and entry["scores"]["base"]["mean"] == 0
    assert beats(entry)


SAMPLES = sorted(
    path.parent for path in REPOSITORY.glob("adapters/[!_]*/adapter_model.safetensors")
)


def test_the_sample_pool_is_at_most_96_mib_in_files_of_less_than_10_mb():
    files = [path for path in (REPOSITORY / "adapters").rglob("*") if path.is_file()]
    sizes = [file.stat().st_size for file in files if ".checkpoint" not in file.parts]
    assert sum(sizes) <= 96 * 2**20 and max(sizes) < 10 * 10**6


SHIPPED = [
    row
    for row in METHOD_LIST
    if row.training and row.is_trained_in(REPOSITORY / "adapters") and row.weights != "_router"
]


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.name)
def test_weights_that_ship_are_of_this_pool(row, tmp_path):
    folder = REPOSITORY / "adapters" / row.weights
    config = json.loads(next(folder.glob("*_config.json")).read_text())
    assert " /" not in config["command"]
    assert re.search("--data (data|reworded)", config["command"])
    pool = Pool(
        adapters_dir=REPOSITORY / "adapters", data_dir=tmp_path, shapes=dict, read_only=True
    )
    known = {card.name: card.content for card in pool.cards()}
    trained = {one["name"]: one["checksum"] for one in config.get("adapters", ())}
    assert trained == {name: known.get(name) for name in trained}
    assert trained or METHODS[row.name].brings


def test_the_published_systems_ship_their_weights():
    assert {"meteora", "moe", "mole", "lora_flow", "lorauter"} <= {row.name for row in SHIPPED}


@pytest.mark.parametrize("folder", SAMPLES, ids=lambda folder: folder.name)
def test_a_sample_adapter_was_measured_as_it_is_and_beats_every_rival(folder):
    report = json.loads((REPOSITORY / "results" / "adapters_dev.json").read_text())
    entry = report["adapters"][folder.name]
    record = json.loads((folder / "train.json").read_text())
    assert entry["adapter_sha256"] == checksum(folder / "adapter_model.safetensors")
    assert record["base_checksum"] == report["base_checksum"]
    assert record["name"] == record["data"]["name"] == folder.name
    assert entry["rows"] >= 50 and beats(entry)
    surely = all(gain["low"] > 0 for gain in entry["scores"]["gain_over"].values())
    assert surely or "mostly wrong" in (folder / "README.md").read_text(encoding="utf-8")
    examples = (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["text"] for line in examples}) == 20
    assert record["licence"] not in ("other", "unknown")


def test_the_measured_adapters_are_those_of_the_sample_pool():
    report = json.loads((REPOSITORY / "results" / "adapters_dev.json").read_text())
    assert sorted(report["adapters"]) == [folder.name for folder in SAMPLES]
