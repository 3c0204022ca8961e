"""The team of threads: two callers at once, helpers that sleep, and a process that has forked."""

from functools import partial

import numpy as np
import pytest
import torch

from ramole_core.kernels.call_args import (
    CACHE_LINE,
    COUNTS,
    HELPER,
    LOCAL_COUNTS,
    TILES,
    WORDS,
    longs,
    take,
    words_at,
)
from ramole_core.kernels.team import TEAM, Kernel, _Helper
from tests.support.kernel_fakes import FLOATS, HALVES, Product
from tests.support.serving import wait_until
from tests.support.workers import at_once, python

pytestmark = pytest.mark.usefixtures("two_threads")


def products():
    return [Product("nf4", 333, 64, bias=True), Product(HALVES, 350, 37, bias=False)]


def alone(product, count=20):
    """By one thread; the twenty rows with their update."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = product.run(range(count), updated=count == 20)
    torch.set_num_threads(before)
    return found


def test_the_helpers_take_part(monkeypatch):
    """Else the tests of this file would see one thread only."""
    seen = []
    run = TEAM.run
    monkeypatch.setattr(TEAM, "run", lambda *words: seen.append(run(*words)) or seen[-1])
    products()[0].run(range(20))
    assert seen and all(seen)


def _mark(address):
    words = words_at(address)
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        times, order = longs(words[2], 2, 400)
        times[tile] += 1
        order[tile] = words[3]
        words[3] += 1


@pytest.mark.parametrize("tiles", [2, 3, 64, 333])
def test_each_tile_is_taken_once_and_side_by_side(tiles):
    mark, words = Kernel(_mark), np.zeros(WORDS, np.int64)
    times, order = found = np.zeros((2, 400), np.int64)
    words[2] = found.ctypes.data
    for call in range(1, 301):
        mark.run(words, tiles)
        assert (times[:tiles] == call).all() and times.sum() == call * tiles
    own = -(-tiles // 2)
    for flag, first in ((0, range(own)), (HELPER, range(own, tiles))):
        words[3] = words[LOCAL_COUNTS] = words[LOCAL_COUNTS + CACHE_LINE // 8] = 0
        words[COUNTS] = words.ctypes.data + 8 * LOCAL_COUNTS
        mark._alone(words.ctypes.data + flag)  # as if no other thread came
        others = [n for n in range(tiles) if n not in first]
        assert np.argsort(order[:tiles]).tolist() == [*first, *others]


def test_two_callers_at_once_get_what_each_gets_alone():
    wrong, calls = [], []

    def call(product, wanted):
        for _ in range(300):
            calls.append(1)
            if not torch.equal(product.run(range(20), updated=True), wanted):
                wrong.append(product)

    at_once(*(partial(call, product, alone(product)) for product in products()))
    assert not wrong and len(calls) == 600


def test_a_call_ends_after_its_last_tile():
    """Two products of one size take turns, so that a tile left out shows the other's numbers."""
    turns = [Product(FLOATS, 48, 2000 + n, bias=False) for n in range(2)]
    wanted = [alone(product, 200) for product in turns]
    for _ in range(60):
        for product, y in zip(turns, wanted, strict=True):
            assert torch.equal(product.run(range(200)), y)


def test_a_helper_that_sleeps_is_woken(monkeypatch):
    woken, wake = [], _Helper.wake

    def seen(helper):
        woken.append(not helper._awake)
        wake(helper)

    monkeypatch.setattr(_Helper, "wake", seen)
    product = products()[0]
    wanted = alone(product)
    product.run(range(20))  # makes the helpers
    for _ in range(3):
        wait_until(lambda: not any(helper._awake for helper in TEAM._helpers))
        woken.clear()
        assert torch.equal(product.run(range(20), updated=True), wanted)
        assert any(woken)


def test_a_forked_process_has_a_team_of_its_own():
    """The threads do not come along; a lock that another thread held must not either."""
    code = """
import os, signal, torch
torch.set_num_threads(2)
from ramole_core.kernels.team import TEAM, _Helper
from tests.units.test_kernel_team import alone, products
product = products()[0]
wanted = alone(product)
assert torch.equal(product.run(range(20), updated=True), wanted)
TEAM._lock.acquire()
child = os.fork()
if child == 0:
    signal.alarm(30)
    same = all(torch.equal(product.run(range(20), updated=True), wanted) for _ in range(10))
    os._exit(0 if same and len(TEAM._helpers) == 1 and not TEAM._lock.locked() else 1)
TEAM._lock.release()
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(product.run(range(20), updated=True), wanted)
"""
    done = python("-W", "ignore", "-c", code, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
