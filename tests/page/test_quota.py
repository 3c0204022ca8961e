"""Limits by session, by address and in all; who goes when there is no room, and who never does."""

from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from ramole_core import AdapterRefused, RamoleError
from tests.support.workers import at_once
from ui.session.leaving import sweep
from ui.session.owner import Visitor, owner_of, visitor_of
from ui.session.presence import GONE_SECONDS, IDLE_SECONDS, Presence
from ui.session.quota import MIB, Quota

EVIL, HOME, WORK = "203.0.113.9", "198.51.100.1", "198.51.100.2"
NEAR = "from your address"
FULL = "no room left for uploads; try again later"


class Cards:
    """A pool of sizes alone."""

    def __init__(self, *, places: int = 1000):
        self.limits = SimpleNamespace(max_adapters=places)
        self.cards: list[SimpleNamespace] = [card("squad", None, 7, sample=True)]
        self.stuck: set[str] = set()
        """Owners whose adapters cannot be removed."""

    def all_cards(self):
        return list(self.cards)

    def card(self, name, owner):
        return next(c for c in self.cards if (c.name, c.owner) == (name, owner))

    def remove(self, name, owner):
        if owner in self.stuck:
            raise RamoleError("The disk says no.")
        self.cards = [c for c in self.cards if (c.name, c.owner) != (name, owner)]

    def set_aside(self, name, owner):
        gone = self.card(name, owner)
        self.remove(name, owner)
        return SimpleNamespace(card=gone, bytes=gone.bytes, discard=lambda: None)

    def bring_back(self, aside):
        self.cards.append(aside.card)
        return aside.card


def card(name, owner, size, *, sample=False):
    return SimpleNamespace(key=f"{owner}/{name}", name=name, owner=owner, bytes=size, sample=sample)


class System(SimpleNamespace):
    """What a quota knows of a system."""

    __hash__ = object.__hash__  # its quota is found by it


class Place:
    """A quota with a clock that stands still until it is told."""

    def __init__(self, *, places: int = 1000, shared: bool = False, **limits):
        self.now = 1000.0
        self.mixes: dict[str, int] = {}
        """How many each owner kept."""
        self.pool = Cards(places=places)
        self.presence = Presence(lambda: self.now)
        self.ramole = ramole = System(
            pool=self.pool,
            settings=SimpleNamespace(max_upload_mb=1, shared_uploads=shared),
            mix_owners=lambda: set(self.mixes),
            remove_mixes=lambda owner: self.mixes.pop(owner, 0),
        )
        self.quota = Quota(ramole, presence=self.presence, **limits)
        self.count = 0

    def upload(self, who: str, address: str = "", *, mb: float = 0.25) -> None:
        """One more adapter of a session; raises AdapterRefused."""
        self.count += 1
        owner, size = f"session-{who}", int(mb * MIB)
        with self.quota.room(owner, size, address=address):
            new = card(f"a{self.count}", None if self.quota.shared else owner, size)
            self.pool.cards.append(new)
            self.quota.added(new, owner)

    def refuses(self, who: str, address: str = "", *, why: str = FULL, mb: float = 0.25) -> None:
        with pytest.raises(AdapterRefused, match=why):
            self.upload(who, address, mb=mb)

    def undoable(self, *who: str) -> list[str]:
        """Those of these who can undo a removal."""
        return [one for one in who if self.quota.removed.of(f"session-{one}")]

    def removes(self, who: str) -> None:
        """A session's last upload is removed, and can be brought back."""
        owner = f"session-{who}"
        last = [c for c in self.pool.cards if self.quota.owns(c, owner)][-1]
        self.quota.remove(last.name, owner, keep=True)

    def held(self) -> dict[str, int]:
        """Adapters of each session that has some."""
        owners = [c.owner.removeprefix("session-") for c in self.pool.cards if c.owner]
        return {owner: owners.count(owner) for owner in dict.fromkeys(owners)}


def test_twelve_invented_sessions_of_one_address_share_the_room_of_four():
    place, refused = Place(adapters=3), 0
    for who in range(12):
        for _ in range(3):
            try:
                place.upload(f"evil{who}", EVIL)
            except AdapterRefused as error:
                assert "from your address may come to 12 adapters" in str(error)
                refused += 1
    assert sum(place.held().values()) == 12 and refused == 24
    place.upload("ann", HOME)
    place.upload("ben")


def test_an_address_may_upload_so_many_megabytes_whatever_their_number():
    place = Place(mb=2, address_mb=5)
    for who in range(5):
        place.upload(f"evil{who}", EVIL, mb=1)
    place.refuses("evil9", EVIL, mb=1, why="40 adapters and 5 MB")
    place.upload("ann", HOME, mb=1)


def test_what_is_brought_back_counts_for_its_address_too():
    place = Place(adapters=3, address_adapters=4)
    for who in "abcd":
        for _ in range(3):
            place.upload(who, EVIL)
            place.removes(who)
    for who in "abcd":
        for removal, _ in place.quota.removed.of(f"session-{who}"):
            try:
                place.quota.undo(removal.token, f"session-{who}")
            except AdapterRefused as refusal:
                assert "from your address may come to 4 adapters" in str(refusal)
    assert sum(place.held().values()) == 4
    assert place.undoable(*"abcd"), "what found no room can still be undone"


def test_a_session_that_moves_takes_its_uploads_along():
    place = Place(adapters=3, address_adapters=3)
    for _ in range(2):
        place.upload("ann", HOME)
    place.upload("ben", WORK)
    place.refuses("ann", WORK, why=NEAR)
    place.quota.remove(place.pool.cards[-1].name, "session-ben")
    place.upload("ann", WORK)
    place.refuses("cid", WORK, why=NEAR)
    place.upload("dot", HOME)


def test_an_address_over_its_share_evicts_its_own_silent_sessions_and_never_others():
    place = Place(adapters=2, address_adapters=3)
    place.upload("ann", HOME)
    for who in ("evil1", "evil2", "evil3"):
        place.now += 10
        place.upload(who, EVIL)
    place.now += IDLE_SECONDS
    place.upload("evil4", EVIL)
    assert place.held() == {"ann": 1, "evil2": 1, "evil3": 1, "evil4": 1}


def test_the_longest_silent_goes_first_and_no_more_than_must():
    place = Place(places=1 + 4)
    for who, address in (("ann", HOME), ("ben", WORK), ("cid", ""), ("dot", HOME)):
        place.upload(who, address)
        place.now += 10
    place.presence.seen("session-ann")
    place.now += IDLE_SECONDS
    place.upload("eve", EVIL)
    assert place.held() == {"ann": 1, "cid": 1, "dot": 1, "eve": 1}
    place.upload("eve", EVIL)
    assert place.held() == {"ann": 1, "dot": 1, "eve": 2}


def test_room_in_megabytes_is_made_by_as_many_as_it_takes():
    place = Place(mb=4, all_mb=4)
    for who in ("ann", "ben", "cid"):
        place.upload(who, mb=1)
        place.now += 10
    place.now += IDLE_SECONDS
    place.upload("eve", mb=3)
    assert place.held() == {"cid": 1, "eve": 1}


def test_who_may_have_no_more_adapters_costs_nobody_an_undo():
    place = Place(adapters=2)
    for who in ("ann", "ben"):
        place.upload(who)
        place.removes(who)
    place.upload("ben")
    place.upload("ben")
    place.refuses("ben", why="has 2 adapters, the most")
    assert place.undoable("ann", "ben") == ["ann", "ben"]


def test_removals_go_only_where_that_makes_room_and_those_of_others_last():
    place = Place(mb=4, all_mb=6, address_mb=5)
    for who, address in (("ann", HOME), ("ben", WORK)):
        place.upload(who, address, mb=2)
        place.removes(who)
    place.refuses("ben", WORK, mb=5, why="5.0 MB, and 2.0 of the session's 4 MB are left")
    assert place.undoable("ann", "ben") == ["ann", "ben"]
    place.upload("ben", WORK, mb=3)
    assert place.undoable("ann", "ben") == ["ann"], "its own made the room"
    place.upload("cid", EVIL, mb=1)
    assert place.undoable("ann") == ["ann"], "there is room beside it"
    place.upload("dot", EVIL, mb=2)
    assert place.undoable("ann") == [] and place.held() == {"ben": 1, "cid": 1, "dot": 1}
    for who in ("cid", "dot"):
        place.removes(who)
    place.refuses("eve", HOME, mb=4)
    assert place.undoable("cid", "dot") == ["cid", "dot"]


def test_a_removal_goes_before_a_silent_session_does():
    place = Place(mb=4, all_mb=4)
    for who in ("ann", "ben"):
        place.upload(who, mb=2)
    place.removes("ann")
    place.now += IDLE_SECONDS
    place.upload("cid", mb=2)
    assert place.undoable("ann") == [] and place.held() == {"ben": 1, "cid": 1}


def test_what_the_operator_gave_takes_no_room_of_the_sessions():
    place = Place(all_mb=10)
    place.pool.cards += [card(f"shared{n}", None, 3 * MIB) for n in range(5)]
    for who in ("ann", "ben"):
        place.upload(who, HOME, mb=4)
    place.refuses("cid", WORK, mb=4)


def test_who_uploads_or_runs_something_is_never_evicted_and_its_end_is_a_sign_of_life():
    place = Place(places=1 + 1)
    with place.quota.room("session-ann", 9, address=HOME):
        place.now += 2 * GONE_SECONDS
        place.refuses("eve", EVIL)
        assert place.quota.tidy() == 0
    place = Place(places=1 + 1)
    place.upload("ann", HOME)
    with place.presence.alive("session-ann"), place.presence.alive("session-ann"):
        place.now += 2 * GONE_SECONDS
        place.refuses("eve", EVIL)
        assert place.quota.tidy() == 0
    place.now += IDLE_SECONDS - 1
    place.refuses("eve", EVIL)
    place.now += 1
    place.upload("eve", EVIL)


def test_what_no_session_uploaded_and_what_everybody_uses_stays():
    place = Place(places=1 + 1)
    place.pool.cards.append(card("operators", "operator", 5))
    place.now += 2 * GONE_SECONDS
    place.refuses("eve", EVIL)
    shared = Place(places=1 + 1, shared=True)
    shared.upload("ann", HOME)
    shared.now += 2 * GONE_SECONDS
    shared.refuses("eve", EVIL)
    assert place.quota.tidy() == shared.quota.tidy() == 0
    assert len(place.pool.cards) == len(shared.pool.cards) == 2


def test_shared_uploads_count_for_their_uploaders_address():
    place = Place(shared=True, adapters=1, address_adapters=2)
    place.upload("evil1", EVIL)
    place.upload("evil2", EVIL)
    place.refuses("evil3", EVIL, why=NEAR)
    place.upload("ann", HOME)


def test_what_cannot_be_removed_makes_no_room():
    place = Place(places=1 + 1)
    place.upload("ann", HOME)
    place.pool.stuck.add("session-ann")
    place.now += IDLE_SECONDS
    place.refuses("eve", EVIL)


def test_a_session_that_vanished_is_cleaned_up_and_one_that_is_only_quiet_is_not():
    place = Place()
    place.upload("ann", HOME)
    place.now += GONE_SECONDS / 2
    place.upload("ben", HOME)
    place.upload("ben", HOME)
    place.now += GONE_SECONDS / 2
    assert place.quota.tidy() == 1 and place.held() == {"ben": 2}
    place.now += GONE_SECONDS
    assert place.quota.tidy() == 2 and place.held() == {}
    assert place.presence._seen == {} and place.quota._addresses == {}


@pytest.mark.parametrize("shared", [False, True])
def test_kept_mixes_go_with_their_session_and_no_other(shared):
    place = Place(shared=shared)
    place.mixes = {"session-a": 2, "session-b": 1, "ann": 3}
    for who in ("a", "b"):
        place.presence.watch(f"session-{who}")
    place.now += GONE_SECONDS - 1
    place.presence.seen("session-b")
    place.now += 2
    place.quota.tidy()
    assert place.mixes == {"session-b": 1, "ann": 3}
    place.now += GONE_SECONDS - 3  # that it is watched was not forgotten
    place.quota.tidy()
    assert place.mixes == {"session-b": 1, "ann": 3}
    place.quota.leave("session-b")
    place.quota.leave("ann")
    assert place.mixes == {"ann": 3}, "who is no session keeps what it kept"
    place.mixes["session-old"] = 1  # of an earlier process
    sweep(place.ramole)
    assert place.mixes == {"ann": 3}


def test_what_came_after_its_session_was_over_is_cleaned_up_too():
    place = Place()
    with place.quota.room("session-ann", 9, address=HOME):
        place.quota.leave("session-ann")
        place.quota.tidy()
        place.pool.cards.append(card("late", "session-ann", 9))
    place.now += GONE_SECONDS
    assert place.quota.tidy() == 1


def test_inventing_sessions_fills_no_memory():
    place = Place()
    for number in range(1000):
        request = SimpleNamespace(session_hash=f"made up {number}", headers={})
        with place.presence.call(request) as visitor:
            assert visitor == Visitor(owner_of(request), "")
        place.presence.seen(visitor.owner)
    assert not place.presence._seen and not place.presence._calls


def test_a_call_ends_as_one_also_where_it_fails():
    place, request = Place(), SimpleNamespace(session_hash="x", headers={})
    place.presence.watch(owner_of(request))
    with pytest.raises(ValueError, match="boom"), place.presence.call(request):
        place.now += 500
        assert place.presence.silent(owner_of(request)) == 0
        raise ValueError("boom")
    place.now += 7
    assert place.presence.silent(owner_of(request)) == 7
    assert visitor_of(None) == Visitor()


def test_many_at_once_never_come_to_more_than_there_is():
    place = Place(places=1 + 20, adapters=5)
    done = []

    def work(number: int) -> None:
        for _ in range(5):
            try:
                place.upload(f"s{number}", f"10.0.0.{number % 4}")
                done.append(number)
            except AdapterRefused:
                pass

    at_once(*[partial(work, number) for number in range(12)])
    assert len(done) == sum(place.held().values()) <= 20


WHO = st.sampled_from([f"{kind}{n}" for kind in ("evil", "home", "far") for n in range(4)])
DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("upload"), WHO, st.sampled_from([0.25, 0.5, 1.0, 1.75])),
        st.tuples(st.just("beat"), WHO, st.just(0.0)),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from([60.0, 200.0, IDLE_SECONDS])),
        st.tuples(st.just("leave"), WHO, st.just(0.0)),
        st.tuples(st.just("tidy"), st.just(""), st.just(0.0)),
    ),
    max_size=60,
)
WHERE = {"evil": EVIL, "home": HOME, "far": ""}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(DEEDS)
def test_nothing_is_ever_exceeded_and_who_is_honest_is_refused_only_among_the_living(deeds):
    place = Place(places=1 + 9, adapters=3, mb=3, address_adapters=5, address_mb=4, all_mb=5)
    seen: dict[str, float] = {}
    for what, who, number in deeds:
        before, silent = place.held(), {w for w in seen if place.now - seen[w] >= IDLE_SECONDS}
        if what == "wait":
            place.now += number
        elif what == "beat":
            place.presence.seen(f"session-{who}")
            seen[who] = place.now
        elif what == "leave":
            place.quota.leave(f"session-{who}")
        elif what == "tidy":
            place.quota.tidy()
        else:
            staying = [c for c in place.pool.cards if who_of(c) not in silent - {who}]
            try:
                place.upload(who, WHERE[who[:-1]], mb=number)
                seen[who] = place.now
            except AdapterRefused as error:
                assert place.held() == before
                if "no room left" in str(error):
                    size = sum(c.bytes for c in staying if not c.sample) + number * MIB
                    assert size > 5 * MIB or len(staying) + 1 > 10
        uploads = [c for c in place.pool.cards if not c.sample]
        assert sum(c.bytes for c in uploads) <= 5 * MIB and len(uploads) <= 9
        for one in {EVIL, HOME}:
            of = [c.bytes for c in uploads if WHERE[who_of(c)[:-1]] == one]
            assert sum(of) <= 4 * MIB and len(of) <= 5
        if what in ("upload", "tidy"):
            gone = {w for w, n in before.items() if place.held().get(w, 0) < n}
            assert gone <= silent - {who}


def who_of(c) -> str:
    return (c.owner or "").removeprefix("session-")
