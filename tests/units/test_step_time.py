"""What the products of one token take: each layer counted, whatever it is held in."""

import itertools
from types import SimpleNamespace

import pytest

from ramole_core.base import step_time
from ramole_core.base.step_time import seconds_of_products

SHAPES = {"a.q": (64, 32), "a.v": (64, 96), "b.q": (64, 32), "b.v": (64, 96), "c": (70, 33)}


@pytest.mark.parametrize("quantization", ["none", "nf4", "int4"])
@pytest.mark.parametrize("room", [2**25, 1])
def test_every_layer_counts_also_where_not_all_are_held(quantization, room, monkeypatch):
    """By a clock on which each pass over the weights of a size takes a second."""
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(step_time, "time", clock)
    monkeypatch.setattr(step_time, "COLD_BYTES", room)
    wanted = 3 if room > 1 else len(SHAPES)
    assert seconds_of_products(SHAPES, quantization) == wanted
