"""The map of the pool: its plane is scikit-learn's, its words are inert, and it is one's own."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ramole_core import RamoleError
from tests.support.pool_fakes import PoolRamole, write_adapter, write_sample
from ui.charts.pool_map import (
    alike,
    label_of,
    likeness_figure,
    map_figure,
    plane_of,
    side_by_side,
    unit,
)
from ui.pool import map as pool_map
from ui.pool.map import CHANGE, draw

ANN, BEN = "session-ann", "session-ben"
EVIL = "<img src=x onerror=alert(1)><b>${a}"


@pytest.fixture
def ramole(tmp_path):
    for seed, name in enumerate(("dart", "gsm8k", "squad", "true_case")):
        write_sample(tmp_path / "adapters", name, seed=seed, examples=[name])
    system = PoolRamole(tmp_path)
    system.pool.add(write_adapter(tmp_path / "mine", seed=9), name="anns", owner=ANN)
    yield system
    system.close()


@pytest.fixture
def quota(ramole):
    return SimpleNamespace(owns=lambda card, owner: card.owner == owner)


def vectors(count: int, wide: int = 9) -> np.ndarray:
    return unit(list(np.random.default_rng(count).normal(size=(count, wide))))


@pytest.mark.parametrize("count", [3, 8, 21])
def test_the_plane_is_that_of_scikit_learn(count):
    given = vectors(count)
    pca = PCA(n_components=2, svd_solver="full").fit(given)
    plane = plane_of(given)
    assert np.allclose(np.abs(plane.place(given)), np.abs(pca.transform(given)), atol=1e-9)
    assert plane.kept == pytest.approx(pca.explained_variance_ratio_.sum())
    again = plane_of(given.copy())
    assert (again.axes == plane.axes).all(), "signs included"
    assert np.allclose(plane.place(given).mean(0), 0)


def test_one_or_two_or_equal_adapters_have_a_place_too():
    for given in (vectors(1), vectors(2), np.repeat(vectors(1), 4, axis=0)):
        places = plane_of(given).place(given)
        assert places.shape == (len(given), 2) and np.isfinite(places).all()
        assert map_figure(["x"] * len(given), ["sample"] * len(given), places).data


def test_alike_ones_stand_side_by_side():
    a, b = np.eye(3)[0], np.eye(3)[1]
    matrix = alike(unit([a, b, a + 0.1 * b, b + 0.1 * a]))
    assert matrix[0, 0] == pytest.approx(1) and matrix[0, 1] == pytest.approx(0)
    assert side_by_side(matrix) == [0, 2, 3, 1]
    shown = likeness_figure(["a", "b", "c", "d"], matrix).data[0]
    assert np.allclose(shown.z, matrix, atol=1e-3)


def test_a_prompt_has_a_line_to_each_adapter_that_it_finds():
    given = vectors(5)
    places = plane_of(given).place(given)
    here = np.array([0.5, -0.25])
    figure = map_figure(list("abcde"), ["sample"] * 5, places, prompt=here, found=[(3, 0.9)])
    (line,) = [trace for trace in figure.data if trace.mode == "lines"]
    assert (line.x[0], line.y[0]) == (0.5, -0.25)
    assert (line.x[1], line.y[1]) == pytest.approx(tuple(places[3]))
    assert figure.data[-1].name == "your prompt"


def test_no_word_of_a_stranger_is_markup():
    assert label_of("a&<b>") == "a&amp;&lt;b&gt;"
    assert len(label_of("x" * 99)) < 40
    places = plane_of(vectors(2)).place(vectors(2))
    for figure in (
        map_figure([EVIL, "b"], ["yours", "sample"], places),
        likeness_figure([EVIL, "b"], alike(vectors(2))),
    ):
        assert "<img" not in figure.to_json().replace("\\u003c", "<")


def test_the_pool_is_drawn_with_a_table_for_each_picture(ramole, quota):
    drawn = draw(ramole, quota, "", 3, owner=None)
    assert len(drawn.map.data[0].x) == 4 and np.shape(drawn.pairs.data[0].z) == (4, 4)
    for told in (drawn.told, drawn.pairs_told):
        assert "Look for" in told and 'class="caption"' in told
        assert all(name in told for name in ("dart", "gsm8k", "squad", "true_case"))
    assert "Found for your prompt" not in drawn.told


def test_the_prompt_is_placed_and_what_it_finds_is_said(ramole, quota):
    drawn = draw(ramole, quota, f"squad {EVIL}", 2, owner=None)
    hits = ramole.retrieve(f"squad {EVIL}", k=2)
    assert f"{hits[0].name} ({hits[0].score:.2f})" in drawn.told
    assert sum(trace.mode == "lines" for trace in drawn.map.data) == 2
    column = re.findall(r"<td>(-?[0-9.]+)</td></tr>", drawn.told)
    assert [float(v) for v in column] == sorted(map(float, column), reverse=True)
    assert "<img" not in drawn.told and "${" not in drawn.told


def test_uploads_of_others_never_appear(ramole, quota):
    mine, other = draw(ramole, quota, "x", 3, owner=ANN), draw(ramole, quota, "x", 3, owner=BEN)
    assert "anns" in mine.told and "anns" in mine.map.to_json() and "yours" in mine.told
    for words in (other.told, other.pairs_told, other.map.to_json(), other.pairs.to_json()):
        assert "anns" not in words


def test_hostile_input_is_a_sentence_and_a_large_pool_is_cut(ramole, quota, monkeypatch):
    with pytest.raises(RamoleError, match="9000 characters"):
        draw(ramole, quota, "x" * 9000, 3, owner=None)
    assert draw(ramole, quota, "x", -5, owner=None).told.count("Found for") == 1
    monkeypatch.setattr(pool_map, "MAX_POINTS", 3)
    monkeypatch.setattr(pool_map, "MAX_PAIRS", 2)
    found = ramole.retrieve("true_case", k=1)[0].name
    drawn = draw(ramole, quota, "true_case", 1, owner=None)
    assert "Not drawn: 1 more adapter." in drawn.told and found in drawn.map.to_json()
    assert "The first 2 are drawn, 1 are not" in drawn.pairs_told


def test_pairs_can_be_alike_in_what_they_change(ramole, quota):
    drawn = draw(ramole, quota, "", 3, owner=None, by=CHANGE)
    cards = sorted(ramole.pool.cards(None), key=lambda card: card.name)
    order = [[card.name for card in cards].index(label[2:]) for label in drawn.pairs.data[0].x]
    deltas = []
    for card in cards:
        modules = ramole.pool.tensors(card).modules
        deltas.append({path: (B.double() @ A.double()).numpy() for path, (A, B) in modules.items()})
    flat = np.stack([np.concatenate([d[p].ravel() for p in sorted(d)]) for d in deltas])
    expected = alike(unit(list(flat)))
    assert np.abs(expected - np.eye(4)).max() > 1e-3, "they have something in common"
    assert np.allclose(drawn.pairs.data[0].z, expected[np.ix_(order, order)], atol=1e-3)
    assert "the updates B A" in drawn.pairs_told
