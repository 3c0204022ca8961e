"""Weights of listed adapters: fetched when they are to answer, checked whole, within a bound."""

import errno
import json
import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from ramole_core import Hit, RamoleError
from ramole_core.hub.arrivals import (
    HELD_SECONDS,
    RETRY_SECONDS,
    UNREACHABLE_SECONDS,
    NotHere,
    Wait,
)
from tests.support.adapter_files import WEIGHTS, tree_of, write_adapter
from tests.support.clocks import Clock
from tests.support.hub_server import HOURS, Repository, adapter, broken
from tests.support.serving import wait_until
from tests.support.workers import at_once


@pytest.fixture
def clock():
    return Clock(1e9)


def repositories(*names: str) -> dict[str, Repository]:
    """One sound adapter a name; its card says the name."""
    return {
        f"ada/{name}": Repository(adapter(n + 1, card=f"All about {name}."), tags=["license:mit"])
        for n, name in enumerate(names)
    }


@pytest.fixture
def listed(hub_server, open_hub):
    """A hub that has listed one sound adapter a name."""

    def make(*names: str, **said):
        hub_server.repositories = repositories(*names)
        hub = open_hub(**said)
        hub.search()
        return hub

    return make


def ask(hub, text: str, *, k: int = 1, hits=()) -> tuple[str, ...]:
    return hub.bring_nearer(hub.near(text, k + hub.spare), hits, k)


def test_a_name_brings_the_commit_that_is_listed_now(listed, hub_server):
    hub = listed("sums")
    hub.bring_named(["hf:ada/sums"], there=set())
    hub_server.repositories["ada/sums"] = Repository(adapter(9, card="All about sums."))
    hub.search()
    hub.bring_named(["hf:ada/sums"], there=set())
    (row,), card = hub.rows(), hub._pool.card(hub.name_in_pool("hf:ada/sums"))
    assert any(row.sha in note for note in card.notes)


def test_the_nearest_comes_and_is_an_adapter_like_any_other(listed, hub_server, open_hub, tmp_path):
    hub = listed("sums", "poems")
    assert hub.rows()[0].verdict == "fits" and not hub_server.weights_asked()
    (said,) = ask(hub, "all about sums")
    assert said == "ada/sums was fetched from the Hub for this answer (0.0 MiB, licence mit)."
    assert hub.fetched() == {"ada/sums"} and len(hub_server.weights_asked()) == 1
    assert hub_server.tokens == {None}, "never the operator's login"
    card = hub._pool.card("ada--sums")
    assert card.owner is None and card.description == "All about sums." and card.licence == "mit"
    assert any(hub_server.repositories["ada/sums"].sha in note for note in card.notes)
    assert hub._pool.tensors(card).modules
    assert {one.repo: one.verdict for one in hub.rows()} == {
        "ada/sums": "checked",
        "ada/poems": "fits",
    }
    assert [one.repo for one, _ in hub.near("all about sums", 5)] == ["ada/poems"]

    hub_server.asked.clear()
    again = open_hub()
    assert again.fetched() == {"ada/sums"} and again._pool.card("ada--sums").content == card.content
    again.search()
    assert not hub_server.asked[1:], "nothing changed, so nothing was read"
    again._pool.remove("ada--sums")
    assert not again.fetched()
    assert ask(again, "all about sums")[0].startswith("ada/sums was fetched")


def test_only_those_come_that_are_nearer_than_the_pools(listed):
    hub = listed("sums", "poems", "knots")
    (_, best), (_, second), _ = hub.near("all about sums", 3)
    high, low = Hit("x", best + 0.1), Hit("y", (best + second) / 2)
    assert ask(hub, "all about sums", k=1, hits=[high]) == ()
    assert ask(hub, "all about sums", k=1, hits=[Hit("x", best)]) == (), "a tie is the pool's"
    assert hub.fetched() == set()
    assert len(ask(hub, "all about sums", k=2, hits=[high, low])) == 1
    assert hub.fetched() == {"ada/sums"}


def test_one_that_does_not_fit_is_told_and_the_next_best_answers(hub_server, open_hub, tmp_path):
    hub_server.repositories = repositories("sums", "sums-too")
    nan = broken(1)["nan"]
    nan.files["README.md"] = b"All about all sums."
    hub_server.repositories["ada/nan"] = nan
    hub = open_hub()
    hub.search()
    first, second = ask(hub, "all about all sums")
    assert first.startswith("ada/nan on the Hub is nearer, and the next best answers in its place")
    assert "finite" in first or "NaN" in first
    assert second.startswith("ada/sums")
    (row,) = [one for one in hub.rows() if one.repo == "ada/nan"]
    assert row.verdict == "refused" and row.reason
    hub_server.asked.clear()
    assert not any("nan" in note for note in ask(hub, "all about all sums", k=2))
    assert not any("/nan/" in path for path in hub_server.asked), "it is refused for good"
    staged = [path for path in tree_of(tmp_path / "data") if path.startswith("staging/")]
    assert not staged
    assert next(o for o in open_hub().rows() if o.repo == "ada/nan").verdict == "refused"
    hub = open_hub()
    hub.search()
    assert next(one for one in hub.rows() if one.repo == "ada/nan").verdict == "refused"


def test_a_hub_that_is_gone_costs_one_try_and_comes_back(listed, hub_server, clock):
    hub, steady = listed("sums", "poems", clock=clock), Clock()
    hub._arrivals._steady = steady
    hub_server.status = 503
    said = ask(hub, "all about sums", k=2)
    assert len(said) == 2 and "could not be fetched" in said[0] and "a moment ago" in said[1]
    asked = len(hub_server.asked)
    hub_server.status = None
    clock.now -= 24 * 3600  # set back, which makes no pause longer
    assert all("a moment ago" in note for note in ask(hub, "all about sums", k=2))
    assert len(hub_server.asked) == asked
    steady.now += UNREACHABLE_SECONDS + 1
    assert all("was fetched" in note for note in ask(hub, "all about sums", k=2))


def test_nobody_waits_for_slow_weights_and_all_get_them_once_they_are_here(listed, hub_server):
    hub = listed("sums")
    hub_server.slow = threading.Event()
    near, said = hub.near("all about sums", 1), []
    short, long = Wait(time.monotonic() + 0.1), Wait(math.inf)
    for _ in range(2):
        assert "still on its way" in hub.bring_nearer(near, (), 1, short)[0]
        wait_until(hub_server.weights_asked)  # its tree comes first
    asking = [lambda: said.extend(hub.bring_nearer(near, (), 1, long)) for _ in range(6)]
    at_once(hub_server.slow.set, *asking)
    assert len(said) == 6 and all("was fetched" in note for note in said)
    assert len(hub_server.weights_asked()) == 1, "it is fetched once"


def test_no_prompt_and_no_crowd_makes_a_long_queue(listed, hub_server, monkeypatch):
    monkeypatch.setattr("ramole_core.hub.hub.MAX_WAIT_SECONDS", 0.0)
    hub = listed(*(f"thing{n}" for n in range(20)))
    hub_server.slow = threading.Event()
    said = ask(hub, "all about thing0", k=20)
    assert len(said) == 8 and all("still on its way" in note for note in said)
    more = ask(hub, "all about thing19", k=20) + ask(hub, "all about thing12", k=20)
    assert any("Many others are on their way" in note for note in more)
    assert len(hub._arrivals._coming) == 12


def test_what_was_unused_longest_makes_room(listed, clock, tmp_path):
    hub = listed("one", "two", "three", clock=clock)
    size = hub.rows()[0].bytes
    hub._arrivals._limit = 2 * size + 10
    hub._pool.add(write_adapter(tmp_path / "own", seed=91), name="mine")  # takes no room
    for name in ("one", "two"):
        assert "was fetched" in ask(hub, f"about {name}")[0]
        clock.now += 1
    (said, *_) = ask(hub, "about three")
    assert "no room for one more; raise RAMOLE_HUB_MB" in said, "both were used a moment ago"
    clock.now += HELD_SECONDS
    hub.used(["ada--one"])
    clock.now += 1
    assert "was fetched" in ask(hub, "about three")[0]
    assert hub.fetched() == {"ada/one", "ada/three"}
    clock.now -= 24 * 3600  # set back, which stops no eviction
    assert "was fetched" in ask(hub, "about two")[0]
    assert {card.name for card in hub._pool.cards()} == {"mine", "ada--two", "ada--three"}
    hub._arrivals._limit = size - 1
    assert "are kept in all; raise RAMOLE_HUB_MB" in ask(hub, "about one")[0]


def test_one_that_the_disk_does_not_let_go_is_passed_over(listed, clock, monkeypatch):
    hub = listed("one", "two", "three", clock=clock)
    hub._arrivals._limit = 2 * hub.rows()[0].bytes + 10
    for name in ("one", "two"):
        ask(hub, f"about {name}")
        clock.now += 1
    clock.now += HELD_SECONDS
    remove = hub._pool.remove

    def stuck(name: str) -> None:
        if name == "ada--one":
            raise RamoleError("It could not be removed (Input/output error).")
        remove(name)

    monkeypatch.setattr(hub._pool, "remove", stuck)
    assert "was fetched" in ask(hub, "about three")[0]
    assert hub.fetched() == {"ada/one", "ada/three"}


def test_what_a_full_disk_does_not_register_does_not_stay(listed, clock, monkeypatch):
    hub = listed("one", "two")
    hub._arrivals._steady = clock
    hub._pool.add("hf:ada/two", name="mine")
    with monkeypatch.context() as patched:
        patched.setattr(hub._register, "_write_fetched", full_disk)
        for name in ("one", "two"):
            assert "The pool's disk is full" in ask(hub, f"about {name}")[0]
    assert [card.name for card in hub._pool.cards()] == ["mine"], "what a user added stays"
    assert not hub._register.fetched() and {one.verdict for one in hub.rows()} == {"fits"}
    clock.now += RETRY_SECONDS
    assert "was fetched" in ask(hub, "about one")[0]
    assert [came.ours for came in hub._register.fetched()] == [True]


def test_a_verdict_that_a_full_disk_does_not_take_holds_until_the_next_start(
    hub_server, open_hub, monkeypatch
):
    hub_server.repositories = repositories("sums") | {"ada/nan": broken(1)["nan"]}
    hub = open_hub()
    hub.search()
    monkeypatch.setattr(hub._register, "_write", full_disk)
    said = " ".join(ask(hub, "all about sums", k=2))
    assert "ada/sums was fetched" in said and ("finite" in said or "NaN" in said)
    verdicts = {one.repo: one.verdict for one in hub.rows()}
    assert verdicts == {"ada/sums": "checked", "ada/nan": "refused"}


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_to_close_waits_for_no_weights_and_they_do_not_come_later(listed, hub_server, monkeypatch):
    monkeypatch.setattr("ramole_core.hub.hub.MAX_WAIT_SECONDS", HOURS)
    hub = listed("sums", "poems", "knots")
    hub_server.slow = threading.Event()
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.extend(ask(hub, "all about sums", k=3)))
    asking.start()
    wait_until(hub_server.weights_asked)
    ((_, coming), *_) = hub._arrivals._coming.values()
    hub.close()
    hub._pool.close()
    asking.join(60)
    assert not asking.is_alive() and not hub_server.slow.is_set()
    assert len(said) == 3 and not any("was fetched" in note for note in said)
    hub_server.slow.set()
    with pytest.raises(RamoleError, match="closed"):
        coming.result(20)
    assert not hub._pool.cards()


def test_nobody_is_waited_for_who_wants_no_answer_any_more(listed, hub_server, monkeypatch):
    monkeypatch.setattr("ramole_core.hub.hub.MAX_WAIT_SECONDS", HOURS)
    hub = listed("sums", "poems")
    hub_server.slow = threading.Event()
    gone = threading.Event()
    near = hub.near("all about sums", 2)

    def leave():
        wait_until(hub_server.weights_asked)
        gone.set()

    threading.Thread(target=leave, daemon=True).start()
    first, second = hub.bring_nearer(near, (), 2, hub.wait(gone.is_set))
    assert "still on its way" in first and "Nobody waits" in second
    assert len(hub._arrivals._coming) == 1, "and nothing more is asked for"


@pytest.mark.parametrize("same", [False, True])
def test_another_of_its_name_is_neither_removed_nor_served_in_its_place(
    listed, clock, tmp_path, monkeypatch, same
):
    hub = listed("sums", "poems", clock=clock)
    ask(hub, "all about sums")
    hub._pool.remove("ada--sums")
    later = SimpleNamespace(now=lambda zone: datetime(2222, 2, 2, tzinfo=zone))
    monkeypatch.setattr("ramole_core.pool.manifest.datetime", later)
    own = "hf:ada/sums" if same else write_adapter(tmp_path / "own", seed=91)
    mine = hub._pool.add(own, name="ada--sums")
    assert not hub.fetched()
    clock.now += HELD_SECONDS + 1
    hub._arrivals._limit = hub.rows()[-1].bytes
    assert "was fetched" in ask(hub, "all about poems")[0]
    assert {card.name for card in hub._pool.cards()} == {"ada--sums", "ada--poems"}
    assert hub.name_in_pool("hf:ada/sums") == "hf:ada/sums"
    clock.now += HELD_SECONDS + 1
    assert hub.bring_named(["hf:ada/sums"], there=())
    assert hub._pool.card("ada--sums") == mine
    assert hub.name_in_pool("hf:ada/sums") == ("ada--sums" if same else "ada--sums-2")


def test_a_register_of_an_earlier_version_knows_its_own_by_their_notes(listed, open_hub, tmp_path):
    hub = listed("sums")
    ask(hub, "all about sums")
    file = tmp_path / "data/hub/fetched.json"
    (row,) = json.loads(file.read_text())["fetched"]
    assert row.pop("mark")
    file.write_text(json.dumps({"fetched": [row]}))
    hub = open_hub()
    assert hub.fetched() == {"ada/sums"} and hub.name_in_pool("hf:ada/sums") == "ada--sums"
    hub._pool.remove("ada--sums")
    hub._pool.add(write_adapter(tmp_path / "own", seed=91), name="ada--sums")
    assert not hub.fetched() and hub.name_in_pool("hf:ada/sums") == "hf:ada/sums"


@pytest.mark.parametrize("same", [False, True])
def test_what_somebody_adds_while_it_is_fetched_stays(listed, clock, tmp_path, monkeypatch, same):
    hub = listed("sums", "poems", clock=clock)
    add = hub._pool.add

    def late(source, name, *more, **said):
        own = (source, "mine") if same else (write_adapter(tmp_path / "own", seed=91), name)
        add(*own)
        return add(source, name, *more, **said)

    with monkeypatch.context() as patched:
        patched.setattr(hub._pool, "add", late)
        (said,) = hub.bring_nearer(hub.near("all about sums", 1), (), 1)
    assert ("was fetched" if same else "already another adapter named 'ada--sums'") in said
    if not same:  # it gets another name the next time
        assert {one.verdict for one in hub.rows()} == {"fits"}
        assert "was fetched" in ask(hub, "all about sums")[0]
    assert hub.name_in_pool("hf:ada/sums") == ("mine" if same else "ada--sums-2")
    hub._arrivals._limit = hub.rows()[-1].bytes
    clock.now += HELD_SECONDS + 1
    assert "was fetched" in ask(hub, "all about poems")[0]
    left = {"mine"} if same else {"ada--sums"}
    assert {card.name for card in hub._pool.cards()} == left | {"ada--poems"}


def test_it_comes_when_it_is_named_or_says_in_one_sentence_why_not(listed, hub_server):
    hub = listed("one", "two")
    assert hub.bring_named(["hf:ada/one", "other"], there={"other"})[0].startswith("ada/one was")
    assert hub.name_in_pool("hf:ada/one") == "ada--one" and hub.name_in_pool("other") == "other"
    assert hub.bring_named(["ada--two"], there=set())
    hub_server.repositories = repositories("one", "two", "three")
    hub.search()
    hub_server.status = 500
    with pytest.raises(RamoleError, match="ada/three cannot be used: .*could not be fetched"):
        hub.bring_named(["ada--three"], there=set())


def put_files(repository: Repository, folder: Path) -> Path:
    """The repository's weights in a folder, without its card."""
    folder.mkdir()
    for name in (WEIGHTS, "adapter_config.json"):
        (folder / name).write_bytes(repository.files[name])
    return folder


def test_what_somebody_added_is_neither_changed_nor_removed(listed, hub_server, tmp_path, clock):
    hub = listed("sums", "poems", clock=clock)
    hub._pool.add(write_adapter(tmp_path / "a", seed=91), name="ada--poems", owner="ann")
    hub._pool.add(write_adapter(tmp_path / "b", seed=92), name="ada--poems")
    mine = put_files(hub_server.repositories["ada/sums"], tmp_path / "mine")
    hub._pool.add(mine, "mine", ["one of my own", "and another"])
    before = hub._pool.all_cards()
    ask(hub, "all about sums")
    assert hub.fetched() == {"ada/sums"}
    assert hub._pool.all_cards() == before, "neither examples nor description of the Hub's"
    hub._arrivals._limit = hub.rows()[-1].bytes
    clock.now += HELD_SECONDS + 1
    ask(hub, "all about poems")
    poems = hub._pool.card("ada--poems-2")
    assert hub._pool.all_cards() == [*before, poems] and poems.description == "All about poems."


@pytest.mark.parametrize("examples", [["mine"], None])
def test_what_somebody_adds_stays_though_the_hub_had_brought_it_first(
    listed, hub_server, tmp_path, clock, examples
):
    hub = listed("sums", "poems", clock=clock)
    ask(hub, "all about sums")
    mine = put_files(hub_server.repositories["ada/sums"], tmp_path / "mine")
    fetched = hub._pool.card("ada--sums")
    wait_until(lambda: datetime.now(UTC).isoformat(timespec="seconds") > fetched.added)
    hub._pool.add(mine, "mine", examples)
    hub._arrivals._limit = hub.rows()[0].bytes + 100
    clock.now += HELD_SECONDS + 1
    ask(hub, "all about poems")
    held = {card.name: card.examples for card in hub._pool.cards()}
    assert held["ada--sums"] == (tuple(examples) if examples else fetched.examples)
    assert "ada--poems" in held


def test_a_verdict_of_an_earlier_commit_changes_nothing(listed):
    hub = listed("sums", "poems")
    sums, poems = hub.rows()
    hub._register.judge(replace(sums, sha="0" * 40), reason="It was broken.")
    assert hub.rows() == [sums, poems], "another commit is listed now"
    hub._register.keep_only(["ada/poems"], when=1.0)
    hub._register.judge(sums)
    assert hub.rows() == [poems], "it is listed no more"


def test_nothing_is_evicted_where_all_of_it_would_not_be_enough(listed, clock):
    hub = listed("sums", "poems", "knots", clock=clock)
    rows, arrivals = {row.repo: row for row in hub.rows()}, hub._arrivals
    arrivals.bring(rows["ada/sums"], hub.wait())
    clock.now += HELD_SECONDS + 1
    arrivals.bring(rows["ada/poems"], hub.wait())
    arrivals._limit = rows["ada/sums"].bytes + rows["ada/poems"].bytes
    with pytest.raises(NotHere, match="used a moment ago"):
        arrivals.bring(replace(rows["ada/knots"], bytes=arrivals._limit), hub.wait())
    assert hub.fetched() == {"ada/sums", "ada/poems"}
