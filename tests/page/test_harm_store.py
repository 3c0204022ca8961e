"""The one store of sessions: who goes first, and that all of a session goes with it."""

from functools import partial
from types import SimpleNamespace

import pytest

from tests.support.clocks import Steps
from tests.support.workers import at_once
from ui.session.store import AGE_SECONDS, SessionStore

HOME, EVIL = "198.51.100.1", "203.0.113.9"


class Place:
    """A store with a clock that stands still, and a drawer of weights."""

    def __init__(self, *, sessions=(4, 8), bytes=(40, 80)):
        self.now, self.gone, self.ended = 0.0, [], []
        self.store = SessionStore(sessions=sessions, bytes=bytes, clock=lambda: self.now)
        self.store.forgotten.append(self.gone.append)
        self.runs = self.store.drawer(weigh=lambda run: run.weight, end=self.ended.append)
        self.picks = self.store.drawer()

    def ask(self, session: str, address: str = "", *, weight: int = 1) -> SimpleNamespace:
        run = SimpleNamespace(weight=weight)
        self.store.seen(session, address)
        self.runs.put(session, run)
        return run


def test_invented_sessions_of_one_address_wipe_nobody_elses():
    place = Place()
    for n in range(3):
        place.ask(f"home{n}", HOME)
    for n in range(2001):
        place.ask(f"evil{n}", EVIL)
    assert len(place.store) == 7 and not any("home" in name for name in place.gone)
    assert place.runs.get("evil2000") and place.runs.get("evil1996") is None


def test_where_addresses_are_unknown_a_page_that_is_open_outlives_all_that_are_not():
    place = Place()
    with place.store.stream("page"):
        run = place.ask("page")
        for n in range(2001):
            place.ask(f"evil{n}")
        assert place.runs.get("page") is run and place.gone[0] == "evil0"
    for n in range(8):
        place.ask(f"more{n}")
    assert place.runs.get("page") is None and "page" in place.gone


def test_what_weighs_too_much_goes_with_all_of_its_session_and_is_ended():
    place = Place()
    first = place.ask("evil0", EVIL, weight=15)
    place.picks.put("evil0", "a token")
    place.ask("home", HOME, weight=15)
    place.ask("evil1", EVIL, weight=15)
    place.ask("evil2", EVIL, weight=15)
    assert place.gone == ["evil0"] and place.ended == [first]
    assert place.picks.get("evil0") is None and place.store.bytes == 45


def test_a_run_weighs_what_has_come_of_it():
    place = Place()
    run = place.ask("ann", HOME)
    place.ask("ben", HOME, weight=20)
    run.weight = 30
    place.runs.put("ann", run)
    assert place.gone == ["ben"] and place.store.bytes == 30
    run.weight = 500
    place.runs.put("ann", run)
    assert place.runs.get("ann") is run, "nobody else is there to go"
    place.runs.drop("ann")
    assert place.ended[-1] is run and place.store.bytes == 0


def test_who_leaves_is_ended_and_a_session_without_a_stream_grows_old():
    place = Place()
    run = place.ask("ann")
    place.store.leave("ann")
    assert place.ended == [run] and place.runs.get("ann") is None and place.gone == []
    with place.store.stream("ann"):
        place.now += 2 * AGE_SECONDS
        place.store.sweep()
        assert place.gone == []
    place.now += AGE_SECONDS + 1
    place.store.sweep()
    assert place.gone == ["ann"] and len(place.store) == 0


def test_prefixes_of_ipv6_have_shares_that_grow():
    place = Place(sessions=(2, 100))
    for n in range(40):
        place.ask(f"evil{n}", f"2001:db8:0:{n:x}00::/64")
    assert len(place.store) == 8


def test_many_threads_leave_sums_that_are_right():
    place = Place(sessions=(10, 20), bytes=(100, 200))

    def visit(number: int) -> None:
        for n in range(200):
            place.ask(f"{number}-{n % 7}", EVIL if number % 2 else HOME, weight=n % 13)
            if n % 5 == 0:
                place.runs.drop(f"{number}-{n % 3}")

    at_once(*[partial(visit, number) for number in range(6)])
    records = place.store._records.values()
    assert place.store.bytes == sum(sum(one.weights.values()) for one in records) <= 200
    assert len(place.store) == len(place.store._order[""]) <= 20


@pytest.mark.parametrize("address", [EVIL, ""])
def test_one_more_session_costs_no_more_where_there_are_many(address):
    def steps(count: int) -> int:
        place = Place(sessions=(count, count), bytes=(10**9, 10**9))
        for n in range(count):
            place.ask(f"{n}", address)
        with Steps() as steps:
            for n in range(20):
                place.ask(f"more{n}", address)
        return steps.count

    assert steps(800) < 3 * steps(100)
