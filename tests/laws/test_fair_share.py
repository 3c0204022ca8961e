"""Who has had much of the model's time waits while others ask, and nobody waits for ever."""

import threading

import pytest

from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.isolated_forward import BEHIND_STEPS
from ramole_core.engine.waiting import (
    ACTIVE_SECONDS,
    BURST_SECONDS,
    DECAY_SECONDS,
    FairShare,
)
from ramole_core.errors import Cancelled
from tests.support.clocks import Clock
from tests.support.schedules import ask
from tests.support.serving import wait_until
from tests.support.tiny_engine import TinyEngine

EVIL, ANN, BEN, SCRIPT = ("evil", ""), ("ann", ""), ("ben", ""), ("", "")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock) -> FairShare:
    return FairShare(clock)


def test_a_burst_beyond_the_mean_of_those_who_ask_is_too_much(shares):
    shares.add(BURST_SECONDS, [(EVIL, 1.0)])
    assert shares.exceeding([EVIL, ANN]) == set()
    shares.add(2 * BURST_SECONDS, [(EVIL, 1.0)])
    assert shares.exceeding([EVIL, ANN]) == {EVIL}
    assert shares.exceeding([EVIL, ANN, EVIL, BEN]) == {EVIL}
    assert shares.exceeding([EVIL]) == set(), "who asks alone has all of it"
    shares.add(3 * BURST_SECONDS, [(ANN, 1.0)])
    assert shares.exceeding([EVIL, ANN]) == set(), "both had as much"
    assert shares.exceeding([]) == set()


def test_who_asks_again_and_again_asks_between_two_requests_too(shares, clock):
    shares.add(3 * BURST_SECONDS, [(EVIL, 1.0)])
    assert shares.lately() == [EVIL]
    shares.add(0.1, [(ANN, 1.0)])
    clock.now += ACTIVE_SECONDS / 2
    assert set(shares.lately()) == {EVIL, ANN} and shares.exceeding([EVIL, ANN]) == {EVIL}
    clock.now += ACTIVE_SECONDS / 2
    assert shares.lately() == []


def test_a_script_has_no_share_to_keep_to(shares):
    shares.add(100.0, [(SCRIPT, 1.0)])
    assert shares.exceeding([SCRIPT, ANN]) == set()


def test_a_forward_counts_by_what_each_had_of_it(shares):
    shares.add(40.0, [(EVIL, 3.0), (ANN, 0.5), (ANN, 0.5)])
    assert shares._had == {EVIL: 30.0, ANN: 10.0}


def test_it_is_forgotten_by_and_by_whether_others_ask_or_not(shares, clock):
    shares.add(100.0, [(EVIL, 1.0)])
    assert shares.known() == 1
    for _ in range(3):
        assert shares.exceeding([EVIL, ANN]) == {EVIL}
        clock.now += DECAY_SECONDS / 10
    clock.now += 3 * DECAY_SECONDS
    assert shares.exceeding([EVIL, ANN]) == set()
    clock.now += 10 * DECAY_SECONDS
    assert shares.known() == 0
    clock.now += 10 * DECAY_SECONDS
    assert not shares.exceeding([EVIL]) and not shares._had


def test_small_parts_of_many_steps_add_up(shares, clock):
    for _ in range(10_000):
        shares.add(0.032, [(EVIL, 1.0)] * 30 + [(ANN, 1.0), (BEN, 1.0)])
        clock.now += 0.001
    assert shares.exceeding([EVIL, ANN, BEN]) == {EVIL} and shares.known() == 3


@pytest.fixture
def tiny(tiny_llama):
    """Room for 512 tokens; its clock stands still, however slow the machine is."""
    engine = TinyEngine(
        tiny_llama, EngineSizes(max_batch=8, prefill_chunk=64, kv_cache_bytes=2**18)
    )
    engine.engine.scheduler.shares = FairShare(Clock())
    return engine


def submit(tiny, address: str, *, words: int = 3):
    return tiny.submit(ask(words, max_new_tokens=4), [("ant", 2)], address=address)


def running(tiny) -> set[str]:
    scheduler = tiny.engine.scheduler
    return {state.address for state in scheduler.batch.states}


def test_who_had_more_than_its_share_waits_until_the_others_have_their_answers(tiny):
    scheduler = tiny.engine.scheduler
    scheduler.shares.add(10 * BURST_SECONDS, [(EVIL, 1.0)])
    evil, ann = submit(tiny, "evil"), submit(tiny, "ann")
    tiny.engine.step()
    assert running(tiny) == {"ann"} and scheduler.behind(EVIL) and not scheduler.behind(ANN)
    while tiny.heard[ann].end is None:
        assert running(tiny) == {"ann"}
        tiny.engine.step()
    assert tiny.heard[evil].end is None and scheduler.behind(EVIL)
    scheduler.shares._clock.now += ACTIVE_SECONDS
    assert not scheduler.behind(EVIL)
    tiny.finish()
    assert len(tiny.heard[evil].tokens) == 4


def test_what_a_source_has_of_each_step_is_counted(tiny, monkeypatch):
    counted = []
    submit(tiny, "ben")
    tiny.finish()  # from now on it is known how long a prompt takes
    monkeypatch.setattr(
        tiny.engine.scheduler.shares, "add", lambda seconds, parts: counted.extend(parts)
    )
    submit(tiny, "evil"), submit(tiny, "ann")
    tiny.finish()
    sources = [source for source, _ in counted]
    assert sources.count(EVIL) >= 4 and sources.count(ANN) >= 4 and set(sources) == {EVIL, ANN}


def test_one_of_two_sources_does_not_take_all_memory(tiny):
    """Of the pages it has half while another is known to ask, and all of them before that."""
    tokens = tiny.engine._kv.limit // tiny.engine._kv.token_bytes
    each = submit(tiny, "evil", words=20).length
    for _ in range(tokens // each - 1):
        submit(tiny, "evil", words=20)
    tiny.engine.step()
    alone = tiny.engine.scheduler.running
    tiny.finish()
    tiny.engine.scheduler.shares.add(1.0, [(ANN, 1.0), (EVIL, 1.0)])
    for _ in range(tokens // each):
        submit(tiny, "evil", words=20)
    tiny.engine.step()
    assert 1 <= tiny.engine.scheduler.running <= alone // 2 + 1
    tiny.finish()


def test_who_reads_beside_the_batch_waits_before_it_holds_anything(tiny):
    scheduler, prompt = tiny.engine.scheduler, tiny.engine.read(ask(5))
    chosen = tiny.chosen([("ant", 2)])
    scheduler.shares.add(10 * BURST_SECONDS, [(EVIL, 1.0)])
    submit(tiny, "ann")
    over, found = threading.Event(), []

    def examine(source, cancelled=lambda: False):
        try:
            how = {"source": source, "cancelled": cancelled}
            found.append(tiny.engine.examine([prompt], [chosen], **how))
        except Cancelled as gone:
            found.append(gone)

    for cancelled in (lambda: False, over.is_set):
        threading.Thread(target=examine, args=(EVIL, cancelled), daemon=True).start()
    examine(BEN)  # is not kept waiting by them
    assert len(found) == 1
    over.set()
    wait_until(lambda: len(found) > 1)
    assert len(found) == 2 and isinstance(found[1], Cancelled)
    tiny.finish()
    scheduler.shares._clock.now += ACTIVE_SECONDS
    wait_until(lambda: len(found) > 2)
    assert not isinstance(found[2], Cancelled)


def test_prompts_count_when_they_are_admitted(tiny):
    """So of many that come at once the first ones alone are read."""
    scheduler = tiny.engine.scheduler
    submit(tiny, "ben")
    tiny.finish()
    stats = scheduler.batch.stats
    stats.prefill_seconds = 0.6 * BURST_SECONDS * stats.prefill_tokens / 20
    waiting = [submit(tiny, "evil", words=20) for _ in range(5)]
    ann = submit(tiny, "ann")
    tiny.engine.step()
    begun = [state for state in waiting if state not in scheduler.places()]
    assert running(tiny) == {"evil", "ann"} and 1 <= len(begun) <= 3
    while tiny.heard[ann].end is None:
        tiny.engine.step()
    tiny.finish()
    assert all(len(tiny.heard[state].tokens) == 4 for state in waiting)


def test_of_long_ones_of_a_source_the_second_waits_although_it_came_before_it_was_too_much(tiny):
    scheduler, long = tiny.engine.scheduler, tiny.engine.read(ask(60))
    chosen, begun, go = tiny.chosen([("ant", 2)]), [], threading.Event()
    reader = tiny.engine._alone
    read = reader._read

    def noted(*args):
        begun.append(args[-2])
        assert go.wait(60)
        add(10 * BURST_SECONDS, [(EVIL, 1.0)])
        return read(*args)

    def added(seconds, parts):
        if parts == [(EVIL, 1.0)]:
            spent.append(seconds)
        else:
            add(seconds, parts)

    spent, add = [], scheduler.shares.add
    scheduler.shares.add, reader._read = added, noted
    submit(tiny, "ann")

    def examine():
        tiny.engine.examine([long], [chosen], source=EVIL)

    threads = [threading.Thread(target=examine, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: reader._long._waiting)
    go.set()
    wait_until(lambda: not all(thread.is_alive() for thread in threads))
    wait_until(lambda: not reader._long._held)
    assert begun == [EVIL], "the second found that it has had too much, and gave its turn back"
    assert reader._owed == pytest.approx(BEHIND_STEPS * spent[-1])
    tiny.finish()
    scheduler.shares._clock.now += ACTIVE_SECONDS
    for thread in threads:
        thread.join(60)
    assert begun == [EVIL, EVIL]
