"""Who may wait and who is next: addresses in turn, and the sessions of each."""

import pytest
from hypothesis import given, settings, strategies as st

from ramole_core import Request
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.waiting import WaitingQueue, in_turn
from ramole_core.errors import Busy
from ramole_core.turns import check_place, source_of
from tests.support.fake_ramole import FakeRamole
from ui.api.answers import batched, streamed
from ui.ask.answer import Live, answer
from ui.batch.rows import read
from ui.batch.run import run_of, watched


def line(*sources: str) -> list[RequestState]:
    """Requests by `session@address`, in the order in which they came."""
    states = []
    for number, source in enumerate(sources, 1):
        state = RequestState.__new__(RequestState)  # nothing else of it is asked for
        state.number = number
        state.session, _, state.address = source.partition("@")
        states.append(state)
    return states


INVENTED = " ".join(f"s{i}@evil" for i in range(12))


@pytest.mark.parametrize(
    ("waiting", "running", "order"),
    [
        (f"{INVENTED} ann@home ben@work ann@home", "", [1, 13, 14, 2, 15]),
        ("s3@evil ann@home ann@home", "s1@evil s2@evil", [2, 3, 1]),
        ("a@school a@school a@school b@school b@school", "", [1, 4, 2, 5, 3]),
        ("a@school a@school a@school b@school b@school", "a@school", [4, 1, 5, 2, 3]),
        ("a a b @b", "", [1, 3, 4, 2]),
    ],
    ids=["invented sessions", "what runs counts", "in an address", "one runs", "no address"],
)
def test_addresses_take_turns_and_the_sessions_of_each(waiting, running, order):
    found = in_turn(line(*waiting.split()), line(*running.split()))
    assert [state.number for state in found][: len(order)] == order


SOURCES = st.lists(st.sampled_from(["a@x", "b@x", "c@x", "a@y", "d@y", "e", "f"]), max_size=24)


def turn(state, states, key) -> int:
    """How many of its own kind come before it, in the order given."""
    return [t.number for t in states if key(t) == key(state)].index(state.number)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(waiting=SOURCES, running=SOURCES)
def test_nobody_is_two_turns_ahead_of_anybody(waiting, running):
    def source(state):
        return state.address or f"session {state.session}"

    waiting, running = line(*waiting), line(*running)
    order = in_turn(waiting, running)
    assert sorted(t.number for t in order) == [t.number for t in waiting]
    turns = [turn(t, order, source) + sum(source(r) == source(t) for r in running) for t in order]
    assert turns == sorted(turns)
    for one in {source(t) for t in order}:
        own = [t for t in order if source(t) == one]
        begun = [r.session for r in running if source(r) == one]
        inner = [turn(t, own, lambda t: t.session) + begun.count(t.session) for t in own]
        assert inner == sorted(inner)


def place(waiting, source: str, *, max_queue: int = 128, max_batch: int = 8) -> None:
    session, _, address = source.partition("@")
    sizes = {"max_queue": max_queue, "max_batch": max_batch}
    sources = [source_of(state.session, state.address) for state in waiting]
    check_place(sources, source_of(session, address), **sizes)


def test_invented_sessions_cannot_fill_the_queue():
    waiting = line(*(f"s{i % 12}@evil" for i in range(32)))
    place(waiting[:31], "s99@evil")
    with pytest.raises(Busy, match="32 requests of your address are waiting"):
        place(waiting, "s99@evil")
    place(waiting, "ann@home")
    place(waiting, "evil")
    place(waiting, "")


def test_an_unknown_address_has_its_share_by_session_and_a_script_has_none():
    with pytest.raises(Busy, match="32 requests of your session are waiting"):
        place(line(*["ann"] * 32), "ann")
    place(line(*["ann"] * 32), "ben")
    place(line(*[""] * 127), "")
    with pytest.raises(Busy, match="128 requests are waiting"):
        place(line(*[""] * 128), "ben")


def test_a_share_is_never_less_than_a_batch():
    place(line(*["a@x"] * 7), "a@x", max_queue=16)
    with pytest.raises(Busy, match="8 requests of your address"):
        place(line(*["a@x"] * 8), "a@x", max_queue=16)


DOORS = {
    "the page": lambda ramole: answer(
        ramole, Request("hi", owner="ann"), Live(), beside=True, address="10.0.0.9"
    ),
    "a batch of the page": lambda ramole: watched(
        ramole,
        run_of(
            read(ramole, "one\ntwo", "automatic", "ramole", 3, 8, owner="ann"),
            owner="ann",
            address="10.0.0.9",
        ),
    ),
    "/ask": lambda ramole: streamed(ramole, Request("hi", owner="ann"), address="10.0.0.9"),
    "/ask_batch": lambda ramole: batched(
        ramole, ["one", "two"], {}, owner="ann", address="10.0.0.9"
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_says_who_asks_and_from_where(door):
    ramole = FakeRamole()
    list(DOORS[door](ramole))
    assert set(ramole.sessions) == {"ann"} and set(ramole.addresses) == {"10.0.0.9"}


def test_places_follow_each_change():
    queue, running = WaitingQueue(most=99, rows=4), line("ann@home")
    for number in range(3):
        queue.add(line(f"s{number}@evil")[0])
    places = queue.places(running)
    assert list(places.values()) == [1, 2, 3]
    queue.remove(next(iter(places)))
    assert list(queue.places(running).values()) == [1, 2]
