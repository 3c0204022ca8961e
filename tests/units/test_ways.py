"""The way of products of bfloat16: measured once, kept, and one for all processes."""

import pytest

from ramole_core.kernels import ways
from ramole_core.kernels.ways import DOTS, TILES, VECTORS, pick_way, ways_here
from ramole_core.kernels.weight import way_here


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ways, "FOLDER", tmp_path)
    monkeypatch.setattr(ways, "CACHE", True)
    monkeypatch.setattr(ways, "MATRIX", False)
    monkeypatch.setattr(ways, "MULTIPLIES", True)
    return tmp_path


def never(way):
    raise AssertionError(f"{way} was measured")


def test_the_fastest_way_is_taken_and_kept(folder):
    assert pick_way({DOTS: 2.0, VECTORS: 1.0}.__getitem__) == VECTORS
    assert pick_way(never) == VECTORS
    assert [file.read_text() for file in folder.iterdir()] == [VECTORS]


@pytest.mark.parametrize("first", [DOTS, VECTORS])
def test_a_choice_between_others_is_made_again(first, folder, monkeypatch):
    """As on a CPU whose matrix unit a container does not give, beside one that gets it."""
    pick_way(lambda way: float(way != first))
    monkeypatch.setattr(ways, "MATRIX", True)
    assert ways_here() == (TILES, VECTORS)
    assert pick_way({TILES: 1.0, VECTORS: 2.0}.__getitem__) == TILES
    monkeypatch.setattr(ways, "MATRIX", False)
    assert pick_way(never) == first


def test_a_file_that_names_no_way_is_none(folder):
    pick_way({DOTS: 2.0, VECTORS: 1.0}.__getitem__)
    (file,) = folder.iterdir()
    file.write_text("another")
    assert pick_way(never) == DOTS


def test_of_two_processes_that_measure_at_once_the_first_one_decides(folder):
    def other_first(way):
        pick_way({DOTS: 1.0, VECTORS: 2.0}.__getitem__)
        return {DOTS: 2.0, VECTORS: 1.0}[way]

    assert pick_way(other_first) == DOTS
    assert pick_way(never) == DOTS and len(list(folder.iterdir())) == 1


def test_nothing_is_measured_where_it_cannot_be_kept_or_there_is_one_way(folder, monkeypatch):
    monkeypatch.setattr(ways, "CACHE", False)
    assert pick_way(never) == DOTS
    monkeypatch.setattr(ways, "CACHE", True)
    monkeypatch.setattr(ways, "MULTIPLIES", False)
    assert pick_way(never) == VECTORS and not list(folder.iterdir())


def test_this_cpu_has_a_way():
    assert way_here() in ways_here() and set(ways_here()) <= set(ways.NAMES)
