"""A replica: a stream of what comes, cancelled by number, and faults that are sent as data; it
gives up what runs for a page that is gone, and nothing of one that is only slow."""

import asyncio
import gc
import time
from dataclasses import replace

import pytest

from ramole_core.engine.prompt import Prompt
from ramole_core.errors import Busy, RamoleError
from ramole_core.request import Generation, Request, Step
from ramole_core.serving import served_engine
from ramole_core.serving.fleet import EngineLost, PageLost
from ramole_core.serving.served_engine import ServedEngine, located
from ramole_core.serving.wire import Job


class Counting:
    """Tells tokens until it is cancelled, or fails as the prompt says."""

    def __init__(self, settings):
        self.alive = True

    def answer(self, job, tell, *, cancelled):
        if job.request.prompt == "busy":
            raise Busy("The server is busy.")
        if job.request.prompt == "fault":
            raise KeyError("secret words")
        number = 0
        while not cancelled() and number < job.request.max_new_tokens:
            tell(Step(number, "x", None))
            number += 1
            time.sleep(0.002)
        reason = "cancelled" if cancelled() else "length"
        tell(Generation("x" * number, [], [], None, reason, 1, number, 0.0, 0.0))

    def double(self, number):
        return 2 * number

    def refuse(self):
        raise RamoleError("no")


def job(prompt: str, count: int = 5) -> Job:
    return Job(Request(prompt, max_new_tokens=count), (), Prompt(((1,),), count))


NAME = "tests.serving.test_served_engine:Counting"


@pytest.fixture
def engine():
    return ServedEngine({"max_batch": 2}, NAME)


async def heard(engine: ServedEngine, asked: Job) -> list[object]:
    """All that comes of it."""
    return [item async for items in engine.answer("", asked) for item in items]


def test_what_it_has_loaded_is_left_to_no_later_search_for_garbage():
    before, loaded = gc.get_freeze_count(), [[n] for n in range(5000)]
    ServedEngine({"max_batch": 2}, NAME)
    assert gc.get_freeze_count() > before + len(loaded)


def test_all_that_comes_is_told_in_order(engine):
    *steps, end = asyncio.run(heard(engine, job("go")))
    assert [step.token for step in steps] == [0, 1, 2, 3, 4] and end.finish_reason == "length"
    assert engine._open == {}


def test_who_is_cancelled_ends_with_what_it_has(engine):
    asked = job("go", 10_000)

    async def hear():
        heard = []
        async for items in engine.answer("", asked):
            heard += items
            if len(heard) > 3:
                await engine.call("", "cancel", asked.number)
        return heard, (await engine.call("", "cancel", asked.number)).value

    (*steps, end), again = asyncio.run(hear())
    assert end.finish_reason == "cancelled" and end.new_tokens == len(steps) and again is False


def test_who_leaves_the_stream_cancels_it(engine):
    asked = job("go", 10_000)

    async def leave():
        stream = engine.answer("", asked)
        await anext(stream)
        running = engine._open[asked.number]
        await stream.aclose()
        return running

    assert asyncio.run(leave()).cancelled.is_set() and engine._open == {}


def test_a_fault_is_sent_without_its_words(engine, caplog):
    (busy,) = asyncio.run(heard(engine, job("busy")))
    assert isinstance(busy, Busy) and str(busy) == "The server is busy."
    (fault,) = asyncio.run(heard(engine, job("fault")))
    assert isinstance(fault, RuntimeError) and "KeyError" in str(fault)
    assert "secret" not in str(fault) + caplog.text and "KeyError" in caplog.text


def test_a_call_has_its_value_or_its_error(engine):
    assert asyncio.run(engine.call("", "double", 21)).value == 42
    refused = asyncio.run(engine.call("", "refuse"))
    assert isinstance(refused.error, RamoleError) and refused.value is None
    engine.check_health()
    engine._engine.alive = False
    with pytest.raises(RuntimeError, match="thread"):
        engine.check_health()


def test_what_names_nothing_is_one_sentence():
    for name in ("nothing", "ramole_core.nothing:f", "ramole_core.settings:nothing"):
        with pytest.raises(RamoleError, match="give module:function"):
            located(name)


LONG = 100_000


@pytest.fixture
def leased(monkeypatch):
    monkeypatch.setattr(served_engine, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(served_engine, "POLL_SECONDS", 0.03)
    return ServedEngine({"max_batch": 4}, NAME)


def of_page(page: str, count: int) -> Job:
    return replace(job("go", count), page=page)


async def stay(engine: ServedEngine, page: str) -> None:
    """As the page does, until nothing runs for it."""
    await asyncio.sleep(0)
    while any(one.page == page for one in engine._open.values()):
        await engine.call("a", "here", page)
        await asyncio.sleep(0.1)


def test_what_runs_for_a_page_that_died_is_given_up_and_nothing_of_another(leased):
    async def all_of_them():
        async with asyncio.timeout(120):
            return await asyncio.gather(
                heard(leased, of_page("dead", LONG)),
                heard(leased, of_page("alive", 400)),
                heard(leased, of_page("", 400)),
                stay(leased, "alive"),
            )

    dead, alive, nobodys, _ = asyncio.run(all_of_them())
    assert isinstance(dead[-1], PageLost) and isinstance(dead[-1], EngineLost)
    assert 0 < len(dead) - 1 < LONG and all(isinstance(one, Step) for one in dead[:-1])
    for found in (alive, nobodys):
        assert isinstance(found[-1], Generation) and found[-1].finish_reason == "length"
    assert leased._open == {} and "dead" not in leased._leases._looks


def test_a_loop_that_stood_still_takes_no_page_for_dead(leased):
    async def stand_still():
        async with asyncio.timeout(120):
            running = asyncio.create_task(heard(leased, of_page("slow", 800)))
            await asyncio.sleep(0.05)
            time.sleep(1)  # noqa: ASYNC251 nothing is heard meanwhile: three times the lease
            await asyncio.sleep(0.1)  # and the first looks come before its word
            staying = asyncio.create_task(stay(leased, "slow"))
            return (await asyncio.gather(running, staying))[0]

    *steps, end = asyncio.run(stand_still())
    assert isinstance(end, Generation) and end.finish_reason == "length" and len(steps) == 800


def test_an_engine_that_nobody_asks_looks_for_no_page(leased):
    async def hear_once():
        await leased.call("a", "here", "p")
        watching = leased._leases._watching
        async with asyncio.timeout(120):
            await watching

    asyncio.run(hear_once())
    assert leased._leases._looks == {}
