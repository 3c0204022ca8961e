"""Fitting where the base answers: lines, the command, and the calibration that ships."""
# ruff: noqa: F811

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ramole_core import Ramole, RamoleError, Settings
from ramole_core.cli import main
from ramole_core.own_model import shapes_of
from ramole_core.retrieval import BaseExpert
from ramole_core.retrieval.calibration import (
    FollowUpLine,
    ResponseLine,
    SimilarityLine,
    read_calibration,
)
from ramole_core.retrieval.own_cards import EVERYDAY, GOING_ON, everyday_texts
from ramole_core.training import calibrate
from ramole_core.training.calibrate import fit_line
from ramole_core.training.prompt_sets import (
    read_everyday,
    read_follow_ups,
    read_phrased,
    read_uploads,
)
from tests.core.test_ramole import TASKS, ramole as ramole, write_lora  # noqa: F401  the fixture
from tests.support.serving import second_start

VISITORS = {
    "Who are you?": None,
    "Explain photosynthesis to a child": None,
    "Write a short poem about the sea": None,
    "Once upon a time": None,
    "Hi": None,
    "How do I list hidden files in bash?": "nl2bash",
    "Translate to German: The house is small.": None,
}

# --- lines ----------------------------------------------------------------------------------------


def test_a_line_lies_between_the_kinds_whatever_their_numbers():
    wanted, other = np.array([[0.4], [0.6]]), np.array([[0.1], [0.3]])
    line = fit_line(wanted, other)
    assert (line(wanted) > 0).all() and (line(other) < 0).all()
    again = fit_line(wanted, np.repeat(other, 50, axis=0))
    assert again.offset / again.weights[0] == pytest.approx(line.offset / line.weights[0], abs=1e-6)


def test_a_line_weighs_what_tells_and_leaves_what_does_not():
    random = np.random.default_rng(0)
    wanted = np.column_stack([random.normal(1, 1, 400), random.normal(0, 1, 400)])
    other = np.column_stack([random.normal(-1, 1, 400), random.normal(0, 1, 400)])
    weights = fit_line(wanted, other).weights
    assert weights[0] == pytest.approx(2, abs=0.4) and abs(weights[1]) < 0.3


def test_lines_become_thresholds_in_units_of_similarity():
    margins = fit_line(np.array([[0.2], [0.3]]), np.array([[0.0], [0.1]]))
    alone = calibrate.similarity_line(margins, doubt=1.0)
    assert alone.threshold == pytest.approx(0.15) and alone.doubt == 1.0 / margins.weights[0]
    heard = calibrate.response_line(
        replace(margins, weights=np.array([20.0, 2.0, 4.0]), offset=-3.0)
    )
    assert heard == ResponseLine(threshold=0.15, own=0.1, all=0.2)
    kept = calibrate.follow_up_line(margins)
    assert kept.threshold == pytest.approx(0.15) and kept.slope == FollowUpLine().slope
    backwards = fit_line(np.array([[0.0], [0.1]]), np.array([[0.2], [0.3]]))
    with pytest.raises(RamoleError, match="shows nothing .* choose another encoder"):
        calibrate.similarity_line(backwards, doubt=1.0)


# --- the command ----------------------------------------------------------------------------------


def test_calibrate_fits_any_pool_and_encoder_and_an_upload_keeps_it(
    ramole, tmp_path, monkeypatch, capsys
):
    @contextmanager
    def opened():
        yield ramole

    monkeypatch.setattr("ramole_core.ramole.Ramole", opened)
    assert main(["calibrate", "--no-response", "--out", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    made = read_calibration(tmp_path)
    assert made is not None and said["facts"] == made.facts
    assert made.facts["fitted_on"]["examples_of_the_pool"] is True
    assert made.facts["pool"] == sorted(TASKS) and made.alone.doubt == 0 and made.base == ""
    expert = BaseExpert(ramole.retriever, folder=tmp_path, base=lambda: "tiny")
    assert expert.calibrated and expert.calibration == made
    held_out = made.facts["percent_of_the_others_by_similarity"]
    assert set(held_out) == {
        "everyday_to_the_base",
        "tasks_left_to_the_base",
        "follow_ups_kept",
        "changes_kept",
    }
    folder = write_lora(tmp_path / "new", shapes_of(ramole.settings), rank=2, seed=9)
    ramole.pool.add(folder, name="chat", examples=["How are you?", "Nice day!"], owner="me")
    assert BaseExpert(ramole.retriever, folder=tmp_path, base=lambda: "tiny").calibrated
    ramole.pool.remove("chat", owner="me")


def test_calibrate_refuses_an_empty_pool(tmp_path):
    settings = Settings(adapters_dir=tmp_path / "none", data_dir=tmp_path / "data")
    with Ramole(settings) as empty, pytest.raises(RamoleError, match="The pool is empty; add"):
        calibrate.calibrate_for(empty, response=False)


# --- what ships -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory, real_base_folder):
    """The sample pool and the shipped encoder; of the base model its folder alone."""
    data = second_start(tmp_path_factory.mktemp("shipped"))
    with Ramole(Settings(data_dir=data)) as made:
        yield made


def test_the_shipped_calibration_is_current(shipped):
    assert shipped.base_expert.calibrated, "run `python -m ramole_core calibrate`"
    calibration = shipped.base_expert.calibration
    assert calibration.base == shipped.base_kind
    assert calibration.alone != SimilarityLine() and calibration.alone.doubt > 0


def test_what_a_visitor_gets(shipped):
    for prompt, name in VISITORS.items():
        found = shipped.base_expert.judge(prompt, shipped.retrieve(prompt, k=1))
        got = None if found.decision == "base" else found.nearest
        assert got == name or shipped.base_expert.doubts(found), found.sentence


def test_everyday_prompts_of_unseen_families_go_to_the_base_and_tasks_do_not(shipped):
    fitted = shipped.base_expert.calibration.facts["fitted_on"]
    left: dict[str, list[bool]] = {"everyday": [], "phrased": [], "examples": []}
    asked = [("everyday", p.text) for p in read_everyday() if p.family not in fitted["families"]]
    asked += [("phrased", p.text) for p in read_phrased() if p.adapter not in fitted["adapters"]]
    asked += [("examples", card.texts[-1]) for card in shipped.pool.cards()]
    shipped.retriever.vectors([text for _, text in asked])
    for kind, text in asked:
        evidence = shipped.base_expert.judge(text, shipped.retrieve(text, k=1))
        left[kind].append(evidence.decision == "base")
    shares = {kind: np.mean(values) for kind, values in left.items()}
    assert shares["everyday"] > 0.9 and shares["phrased"] < 0.1 and shares["examples"] < 0.1, shares


def test_nothing_that_is_measured_stands_on_the_cards():
    measured = [p.text for p in (*read_everyday(), *read_phrased())]
    measured += [text for chat in read_follow_ups() for text in (chat.first, chat.then)]
    measured += [text for one in read_uploads() for text in (*one.examples, *one.prompts)]
    plain = {" ".join(text.lower().split()) for text in measured}
    cards = [" ".join(text.lower().split()) for text in (*everyday_texts(), *GOING_ON)]
    assert len(set(cards)) == len(cards) and not plain & set(cards)
    assert not {p.family for p in read_everyday()} & set(EVERYDAY)
