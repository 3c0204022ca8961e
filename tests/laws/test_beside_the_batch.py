"""What is read beside the batch: in pieces, in turn, and never in place of its steps."""

import threading
import time
from functools import partial
from unittest.mock import Mock

import pytest
import torch

from ramole_core import Request
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.isolated_forward import groups
from ramole_core.engine.layer_inputs import read_ends
from ramole_core.engine.scheduler import Scheduler
from ramole_core.errors import Busy, Cancelled
from ramole_core.turns import Places, TurnLock
from tests.core.test_ramole import ramole  # noqa: F401  the fixture
from tests.support.schedules import ask
from tests.support.serving import wait_until
from tests.support.tiny_engine import TinyEngine
from tests.support.workers import at_once

CHUNK = 64
READERS = 12
SOON = 120.0


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama, EngineSizes(prefill_chunk=CHUNK))


@pytest.fixture
def forwards(tiny, monkeypatch):
    """(thread, tokens) of each forward."""
    ran, forward = [], tiny.engine._runner.forward

    def running(pieces, kv, **more):
        ran.append((threading.current_thread().name, sum(len(piece.ids) for piece in pieces)))
        return forward(pieces, kv, **more)

    monkeypatch.setattr(tiny.engine._runner, "forward", running)
    return ran


def long_prompts(tiny, count=1):
    return [tiny.engine.read(ask(70 + n)) for n in range(count)]


def test_a_crowd_that_examines_is_one_turn_between_two_steps(tiny, forwards, monkeypatch):
    """However long a piece takes: no clock runs, a step ends when a reader waits for it, and a
    reader's piece when the batch does."""
    over, forward = threading.Event(), tiny.engine._runner.forward
    (prompt,), chosen = long_prompts(tiny), tiny.chosen([("ant", 2)])
    monkeypatch.setattr(tiny.engine.scheduler, "behind", lambda source: False)
    monkeypatch.setattr("ramole_core.engine.isolated_forward.time", Mock(monotonic=lambda: 0.0))

    def until_somebody_waits(pieces, kv, **more):
        end, mine = time.monotonic() + SOON, threading.current_thread().name == "engine"
        while (mine or not tiny.engine.scheduler.idle) and time.monotonic() < end:
            if tiny.engine._lock._waiting:
                break
            time.sleep(0.001)
        return forward(pieces, kv, **more)

    monkeypatch.setattr(tiny.engine._runner, "forward", until_somebody_waits)

    def examine():
        while not over.is_set():
            tiny.engine.examine([prompt], [chosen], source=("evil", ""))

    readers = [threading.Thread(target=examine, daemon=True) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    thread = EngineThread(tiny.engine)
    thread.start()
    try:
        state = tiny.submit(ask(5, max_new_tokens=20), [("bee", 3)])
        thread.wake()
        wait_until(lambda: tiny.heard[state].end is not None)
    finally:
        over.set()
        thread.close()
        join(readers)
    assert len(tiny.heard[state].tokens) == 20
    steps = [n for n, (name, _) in enumerate(forwards) if name == "engine"]
    beside = [count for name, count in forwards[steps[1] : steps[-1]] if name != "engine"]
    assert len(beside) == len(steps) - 2, "one a step, not one of each reader"
    assert max(beside) <= CHUNK


def test_the_batch_has_as_much_time_as_what_is_read_beside_it(tiny, monkeypatch):
    """A piece that took long is followed by so many steps; an idle batch is not waited for."""
    alone, steps = tiny.engine._alone, []
    monkeypatch.setattr(Scheduler, "idle", False)
    alone._owed = 10.0

    def run() -> None:
        for _ in range(5):
            steps.append(alone._owed)
            alone.note_step(2.0)

    batch = threading.Timer(0.1, run)
    batch.start()
    alone._wait_for_steps(("", ""), lambda: False)
    batch.join()
    assert steps == [10.0, 8.0, 6.0, 4.0, 2.0] and alone._owed == 0
    alone._owed = 10.0
    with pytest.raises(Cancelled):
        alone._wait_for_steps(("", ""), lambda: True)
    monkeypatch.setattr(Scheduler, "idle", True)
    alone._wait_for_steps(("", ""), lambda: True)
    assert alone._owed == 10.0, "it was not waited for"
    monkeypatch.setattr(tiny.engine.scheduler, "behind", lambda source: True)
    with pytest.raises(Cancelled):  # it waits, though the batch has nothing to do just now
        alone._wait_for_steps(("evil", ""), lambda: True)


def test_in_pieces_and_together_responses_and_means_are_the_same(tiny, monkeypatch):
    prompts = [tiny.engine.read(ask(n)) for n in (70, 3, 9, 5, 90)]
    chosen = [tiny.chosen([("ant", 2), ("bee", 7)])] * len(prompts)
    found, means = [], []
    for chunk in (7, CHUNK, 10_000):
        monkeypatch.setattr(tiny.engine._alone, "_chunk", chunk)
        told = tiny.engine.examine(prompts, chosen)
        found.append(torch.stack([one.log_norms for row in told for one in row]))
        read = tiny.engine._beside._means(tuple(prompts[0].ids))
        means.append([read[path] for path in sorted(read)])
    for numbers, mean in zip(found[1:], means[1:], strict=True):
        assert torch.equal(numbers, found[0])
        assert all(map(torch.equal, mean, means[0])) and len(mean) == len(means[0]) > 0


def test_short_prompts_are_read_a_chunk_at_a_time_however_idle_the_batch_is(tiny, forwards):
    prompts = [tiny.engine.read(ask(2)) for _ in range(20)]
    tiny.engine.examine(prompts, [tiny.chosen([("ant", 2)])] * len(prompts))
    assert sum(count for _, count in forwards) == sum(len(one.ids) for one in prompts)
    assert max(count for _, count in forwards) <= CHUNK
    assert tiny.engine.examine([], []) == []


def test_of_long_prompts_one_is_in_memory(tiny, monkeypatch):
    alone, open_, most = tiny.engine._alone, [], []
    read = alone._read

    def counted(*args):
        open_.append(1)
        most.append(len(open_))
        try:
            return read(*args)
        finally:
            open_.pop()

    monkeypatch.setattr(alone, "_read", counted)
    prompts, chosen = long_prompts(tiny, 6), [tiny.chosen([("ant", 2)])]
    at_once(*[partial(tiny.engine.examine, [one], chosen) for one in prompts])
    assert most == [1] * 6 and not open_


def test_what_goes_in_at_a_prompts_end_is_what_the_model_itself_has(tiny, monkeypatch):
    monkeypatch.setattr(tiny.engine._alone, "_chunk", 7)
    ids = [tiny.engine.read(ask(n)).ids for n in (30, 4)]
    mine = tiny.engine._beside.ends(ids)
    own = read_ends(tiny.base.model, tiny.engine.layout, ids)
    for one, two in zip(mine, own, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_nothing_is_read_for_somebody_who_has_gone(tiny, forwards):
    prompts = long_prompts(tiny, 2)
    chosen = [tiny.chosen([("ant", 2)])] * 2
    with pytest.raises(Cancelled, match="Nobody waits"):
        tiny.engine.examine(prompts, chosen, cancelled=lambda: bool(forwards))
    assert len(forwards) == 1, "the first piece of two"


@pytest.mark.parametrize(
    ("lengths", "together"),
    [
        ([3, 4, 3], [[0, 2, 1]]),
        ([9, 3, 4, 5], [[1, 2], [3], [0]]),
        ([40, 2], [[1], [0]]),
        ([10, 10], [[0], [1]]),
        ([], []),
    ],
)
def test_prompts_that_fit_into_a_forward_are_read_together(lengths, together):
    assert groups(lengths, 10) == together


def line_up(lock, *takers):
    """The threads of these, each started when the one before it waits for the lock."""
    threads = []
    for take in takers:
        before = len(lock._waiting)
        threads.append(threading.Thread(target=take))
        threads[-1].start()
        wait_until(lambda before=before: len(lock._waiting) > before)
    return threads


def taker(lock, order, source, name):
    """Takes a turn, and writes the name into `order`."""

    def take():
        with lock.turn(source):
            order.append(name)

    return take


def test_sources_take_turns_and_sources_that_come_later_do_not_go_first_for_ever():
    lock, order = TurnLock(), []
    with lock.turn(("evil", "")):
        names = enumerate(["evil"] * 5 + ["ann", "ben"])
        waiting = line_up(lock, *(taker(lock, order, (who, ""), f"{who}{n}") for n, who in names))
    join(waiting)
    assert order == ["ann5", "ben6", *(f"evil{n}" for n in range(5))]
    order.clear()
    for n in range(6):  # a reader of many pieces goes on although each piece meets new sessions
        names = "reader", f"new{2 * n}", f"new{2 * n + 1}"
        with lock.turn(("", "running")):
            waiting = line_up(lock, *(taker(lock, order, ("", name), name) for name in names))
        join(waiting)
    assert order.count("reader") == 6 and order[3::3] == ["reader"] * 5


def join(threads):
    for thread in threads:
        thread.join(SOON)


def test_who_is_cancelled_leaves_the_line_and_stops_nobody():
    lock, gone, found = TurnLock(), threading.Event(), []

    def wait():
        try:
            with lock.turn(cancelled=gone.is_set):
                found.append("held")
        except Cancelled:
            found.append("gone")

    with lock.turn():
        threads = line_up(lock, wait, wait, wait)
        gone.set()
        join(threads)
    assert found == ["gone"] * 3
    with lock.turn():
        found.append("next")
    assert found[-1] == "next" and not lock._waiting


def test_an_error_inside_hands_the_lock_on():
    lock = TurnLock()
    with pytest.raises(ValueError, match="x"), lock.turn():
        raise ValueError("x")
    with lock.turn():
        assert lock._held
    assert not lock._held


def test_one_address_holds_so_many_places_and_gives_them_back():
    places = Places(most=16, rows=2)
    evil = [places.held(("evil", "")) for _ in range(4)]
    for one in evil:
        one.__enter__()
    with pytest.raises(Busy, match="4 requests of your address"), places.held(("evil", "")):
        pass
    with places.held(("ann", "")), places.held(("", "")):
        pass
    evil[0].__exit__(None, None, None)
    with places.held(("evil", "")):
        pass


def test_what_is_prepared_counts_before_it_waits(ramole, monkeypatch):  # noqa: F811
    ramole.load()
    monkeypatch.setattr(ramole, "_preparing", Places(most=32, rows=2))
    going, said, go_on, prepare = [], [], threading.Event(), ramole._preparation.prepare

    def slow(*args, **named):
        going.append(named["source"])
        go_on.wait(SOON)
        return prepare(*args, **named)

    monkeypatch.setattr(ramole._preparation, "prepare", slow)

    def one(n):
        asked = Request("hello", owner=f"s{n}", method="base", max_new_tokens=1)
        try:
            for _ in ramole.stream_batch([asked], address="evil"):
                pass
        except Busy as busy:
            said.append(str(busy))

    def release():
        wait_until(lambda: len(going) + len(said) >= 12)
        go_on.set()

    at_once(release, *(partial(one, n) for n in range(12)))
    assert going == [("evil", "")] * 8
    assert len(said) == 4 and "8 requests of your address" in said[0]
