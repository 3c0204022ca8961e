"""An engine gives up what runs for a page that is gone, and nothing of one that is only slow."""

import asyncio
import time
from dataclasses import replace

import pytest

from ramole_core.request import Generation, Step
from ramole_core.serving import served_engine
from ramole_core.serving.fleet import EngineLost, PageSilent
from ramole_core.serving.served_engine import ServedEngine
from tests.test_served_engine import job

LONG = 100_000


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(served_engine, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(served_engine, "POLL_SECONDS", 0.03)
    return ServedEngine({"max_batch": 4}, "tests.test_served_engine:Counting")


async def heard(engine: ServedEngine, page: str, count: int) -> list[object]:
    """All that comes of a request of this page."""
    asked = replace(job("go", count), page=page)
    return [item async for items in engine.answer("a", asked) for item in items]


async def stay(engine: ServedEngine, page: str) -> None:
    """As the page does, until nothing runs for it."""
    await asyncio.sleep(0)
    while any(one.page == page for one in engine._open.values()):
        await engine.call("a", "here", page)
        await asyncio.sleep(0.1)


def test_what_runs_for_a_page_that_died_is_given_up_and_nothing_of_another(engine):
    async def all_of_them():
        async with asyncio.timeout(120):
            return await asyncio.gather(
                heard(engine, "dead", LONG),
                heard(engine, "alive", 400),
                heard(engine, "", 400),
                stay(engine, "alive"),
            )

    dead, alive, nobodys, _ = asyncio.run(all_of_them())
    assert isinstance(dead[-1], PageSilent) and isinstance(dead[-1], EngineLost)
    assert 0 < len(dead) - 1 < LONG and all(isinstance(one, Step) for one in dead[:-1])
    for found in (alive, nobodys):
        assert isinstance(found[-1], Generation) and found[-1].finish_reason == "length"
    assert engine._open == {} and "dead" not in engine._leases._looks


def test_a_loop_that_stood_still_takes_no_page_for_dead(engine):
    async def stand_still():
        async with asyncio.timeout(120):
            running = asyncio.create_task(heard(engine, "slow", 800))
            await asyncio.sleep(0.05)
            time.sleep(1)  # noqa: ASYNC251 nothing is heard meanwhile: three times the lease
            await asyncio.sleep(0.1)  # and the first looks come before its word
            staying = asyncio.create_task(stay(engine, "slow"))
            return (await asyncio.gather(running, staying))[0]

    *steps, end = asyncio.run(stand_still())
    assert isinstance(end, Generation) and end.finish_reason == "length" and len(steps) == 800


def test_an_engine_that_nobody_asks_looks_for_no_page(engine):
    async def hear_once():
        await engine.call("a", "here", "p")
        watching = engine._leases._watching
        async with asyncio.timeout(120):
            await watching

    asyncio.run(hear_once())
    assert engine._leases._looks == {}
