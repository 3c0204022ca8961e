"""Adapters that show no examples are asked beside the nearest, and found by their response."""
# ruff: noqa: F811

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ramole_core import Request
from ramole_core.base.shapes import read_shapes
from ramole_core.composition.ramole_plus import evidence
from ramole_core.methods import complete_options
from ramole_core.retrieval import AdapterIndex, Hit, Retriever
from ramole_core.retrieval.calibration import BlindLine
from ramole_core.retrieval.retriever import BLIND
from tests.core.test_ramole import ASK, ramole as ramole, write_lora  # noqa: F401  the fixture
from tests.laws.test_base_expert import LINES, expert
from tests.support.retrieval_fakes import FakeCard, FakeEncoder, FakePool

PLUS = "ramole_plus"
HEARS = replace(LINES, blind=BlindLine(slope=2.0, threshold=0.1, all=1.0))


def open_retriever(tmp_path, *, known: int, blind: int) -> Retriever:
    pool = FakePool()
    for n in range(known):
        pool.put(FakeCard(f"known-{n}", texts=(f"a text of kind {n}",)))
    for n in range(blind):
        pool.put(FakeCard(f"blind-{n}", texts=(f"blind {n}",), blind=True))
    return Retriever(pool=pool, encoder=FakeEncoder(), index=AdapterIndex(data_dir=tmp_path))


@pytest.mark.parametrize(
    ("known", "blind", "asked", "count"),
    [
        (40, 0, (32, 0), 32),
        (5, 3, (5, 3), 32),
        (40, 3, (29, 3), 32),
        (40, 1000, (24, BLIND), 32),
        (10, 1000, (10, BLIND), 32),
        (0, 1000, (0, BLIND), 32),
        (0, 20, (0, 20), 32),
        (31, 40, (24, BLIND), 32),
        (5, 20, (4, 4), 8),
        (5, 20, (1, 0), 1),
    ],
)
def test_who_is_asked(tmp_path, known, blind, asked, count):
    retriever = open_retriever(tmp_path, known=known, blind=blind)
    hits = retriever.candidates("a text of kind 3", count=count)
    shown = [hit for hit in hits if not math.isnan(hit.score)]
    assert (len(shown), len(hits) - len(shown)) == asked
    assert hits[: len(shown)] == shown, "those that show examples come first"
    if known:
        nearest = retriever.retrieve("a text of kind 3", k=known + blind)
        assert shown == [hit for hit in nearest if hit.name.startswith("known")][: len(shown)]
    retriever.close()


def test_an_unknown_similarity_counts_as_the_option_says():
    options = complete_options(PLUS, {"surprise": 1.0, "tied": 0.0, "bandwidth": 0.1})
    nan = float("nan")
    assert evidence([0.5, nan], [0.0, 0.0], options=options) == pytest.approx([0.0, -2.0])
    assert evidence([nan, nan], [1.0, 2.0], options=options) == pytest.approx([1.0, 2.0])


def test_where_nobody_shows_examples_the_loudest_decides(tmp_path):
    base = expert(tmp_path, {"a": (0.2, 0.0)}, HEARS)
    first = base.judge("a", [], blind=2)
    assert first.decision == "adapters" and first.nearest is None and base.doubts(first)
    assert first.sentence.startswith(
        "No adapter in sight shows examples, so similarity tells nothing"
    )
    for z, decision in ((1.5, "adapters"), (0.3, "base")):
        settled = base.decide_by_activation(first, [], {"x": z, "y": 0.1})
        assert settled.decision == decision and settled.leader == "x"
        assert settled.response == pytest.approx((z + 0.1) / 2 - 2 * 0.2 - 0.1)
        assert "x most of the 2 that show no examples" in settled.sentence
        assert ("too weakly" in settled.sentence) == (decision == "base")
    unheard = expert(tmp_path, {"a": (0.2, 0.0)}, HEARS, base="another")
    assert not unheard.doubts(unheard.judge("a", [], blind=2))


def test_where_the_nearest_does_not_fit_one_without_examples_may(tmp_path):
    base = expert(tmp_path, {"a": (0.2, 0.0)}, HEARS)
    far = base.judge("a", [Hit("near", 0.1)], blind=1)
    assert far.decision == "base" and base.doubts(far)
    loud = base.decide_by_activation(far, [0.0], {"x": 2.0})
    assert loud.decision == "adapters" and (loud.nearest, loud.leader) == ("near", "x")
    told = "0.30 is needed; the adapters respond to these words strongly enough, by 0.50, x most"
    assert told in loud.sentence
    assert base.decide_by_activation(far, [0.0], {"x": 0.0}).decision == "base"
    fits = base.judge("a", [Hit("near", 0.5)], blind=1)
    assert fits.decision == "adapters" and not base.doubts(fits)
    assert base.decide_by_activation(fits, [0.0], {"x": -9.0}) == fits


def test_an_upload_without_examples_is_found_by_its_response(ramole, tmp_path):
    shapes = read_shapes(Path(ramole.settings.base_model))
    folder = write_lora(tmp_path / "file", shapes, rank=4, seed=77)
    ramole.pool.add(folder, name="silent", owner="ann", examples=[])
    try:
        asked = Request("Will it rain?", method=PLUS, k=9, owner="ann", abstain=False, **ASK)
        (found,) = ramole.candidates([asked])
        scores = {one.name: one.score for one in found}
        assert math.isnan(scores["silent"]) and len(scores) == 5
        assert np.isfinite([one.activation_z for one in found]).all(), "all were asked"
        told = replace(asked, options={"surprise": 0.0, "unknown": 1.0})
        assert ramole.candidates([told])[0][0].name == "silent"
        others = replace(asked, method="similarity")
        assert not any(math.isnan(one.score) for one in ramole.candidates([others])[0])
        answer = ramole.generate([told])[0]
        assert math.isnan(answer.scores[0])
        named = replace(told, adapters=("silent", "weather"), k=3, abstain=None)
        (again,) = ramole.candidates([named])
        assert math.isnan(again[0].score), "an earlier turn is weighed as it was answered"
    finally:
        ramole.pool.remove("silent", owner="ann")


def test_a_follow_up_keeps_adapters_that_show_no_examples(tmp_path):
    near = {"go": (0.1, 0.3)}
    goes_on = expert(tmp_path, near, HEARS).goes_on
    kept = goes_on("go", Hit("y", 0.9), Hit("silent", float("nan")))
    assert kept is not None, "nobody is ahead of it"
    assert (kept.leader, kept.leader_similarity, kept.nearest) == ("silent", None, "y")
    alone = goes_on("go", None, Hit("silent", float("nan")))
    assert alone is not None and alone.decision == "kept" and alone.nearest is None
    assert alone.sentence.endswith("the adapters of the turn before answer, silent first.")
    assert goes_on("go", Hit("y", 0.9), Hit("x", 0.1)) is None
