"""Where nothing runs, a request waits a moment for those that are being prepared beside it."""

import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ramole_core.engine import engine, engine_thread
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.errors import RamoleError
from ramole_core.request import Generation
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.serving import wait_until
from tests.support.tiny_engine import TinyEngine

SOON, LONG, NEVER = 120.0, 3600.0, 1e9
"""Seconds; a machine is rarely up for thirty years."""


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


@pytest.fixture
def thread(tiny):
    made = EngineThread(tiny.engine)
    made.start()
    yield made
    made.close()
    tiny.engine.forget_prefixes()


def elsewhere(function):
    """In a thread of its own, which has ended."""
    one = threading.Thread(target=function)
    one.start()
    one.join(SOON)


def prepared(thread):
    with thread.expecting():
        pass


def prepared_and_submitted(tiny, thread, request):
    prepared(thread)
    return submitted(tiny, thread, request)


def submitted(tiny, thread, request):
    state = tiny.submit(request, [("ant", 2)])
    thread.wake()
    return state


def waits(tiny, thread):
    """Whether the thread has work, and waits for more."""
    return bool(thread._wake._waiters) and not tiny.engine.scheduler.idle


def ended(tiny, states):
    end = time.monotonic() + SOON
    while not all(tiny.heard[state].end for state in states) and time.monotonic() < end:
        time.sleep(0.005)
    return all(tiny.heard[state].end for state in states)


def test_who_comes_together_is_read_together(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    before = tiny.engine.stats()["prefill_forwards"]
    come, states = threading.Event(), []

    def later():
        with thread.expecting():
            come.set()
            wait_until(lambda: states and waits(tiny, thread))  # it is prepared
        states.append(submitted(tiny, thread, replace(ask(5), prompt="quite another")))

    second = threading.Thread(target=later)
    second.start()
    assert come.wait(SOON)
    states.append(prepared_and_submitted(tiny, thread, ask(5)))
    second.join(SOON)
    assert ended(tiny, states)
    assert tiny.engine.stats()["prefill_forwards"] == before + 1


def test_one_alone_waits_for_nobody(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    assert ended(tiny, [prepared_and_submitted(tiny, thread, ask(6))])


def test_nobody_waits_for_one_that_was_refused(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)

    def refused():
        with suppress(RamoleError), thread.expecting():
            raise RamoleError("no such adapter")

    elsewhere(refused)
    assert not thread.expects
    assert ended(tiny, [submitted(tiny, thread, ask(6))])


def test_nobody_waits_long_for_one_that_never_comes(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", LONG)
    clock = SimpleNamespace(now=7.0)
    monkeypatch.setattr(engine_thread, "time", SimpleNamespace(monotonic=lambda: clock.now))
    wait_until(lambda: thread._wake._waiters)
    elsewhere(lambda: prepared(thread))  # and was never submitted
    state = submitted(tiny, thread, ask(6))
    wait_until(lambda: waits(tiny, thread))
    clock.now += LONG - 1
    thread.wake()
    wait_until(lambda: waits(tiny, thread))
    assert not tiny.heard[state].steps and not tiny.heard[state].end
    clock.now += 1
    thread.wake()
    assert ended(tiny, [state])
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    assert ended(tiny, [submitted(tiny, thread, ask(5))]), "it is forgotten"


def test_who_waits_for_a_next_token_does_not_wait_for_others(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    step, go_on = tiny.engine.step, threading.Event()

    def held():
        if any(row.new for row in tiny.engine.scheduler.batch.rows):
            go_on.wait(SOON)
        return step()

    monkeypatch.setattr(tiny.engine, "step", held)
    long = submitted(tiny, thread, ask(4, max_new_tokens=400))
    wait_until(lambda: tiny.heard[long].steps)
    elsewhere(lambda: prepared(thread))
    other = submitted(tiny, thread, ask(6))
    go_on.set()
    assert ended(tiny, [other, long])


def test_a_request_that_comes_while_the_thread_begins_is_answered(tiny, monkeypatch):
    """The thread finds nothing to do and waits, before whoever began it goes on; a long answer, so
    that it is not over by then."""
    local, answers = tiny.engine, []
    prepared = tiny.engine.prepare(ask(5, max_new_tokens=400), tiny.chosen([("ant", 2)]))
    stop = threading.Event()

    def ask_now():
        tell = {"waiting": lambda *place: None, "fitting": lambda *how: None}
        answers.extend(local.stream([prepared], cancelled=stop.is_set, **tell))

    asking = threading.Thread(target=ask_now, daemon=True)

    class Slow(EngineThread):
        def start(self):
            super().start()
            while not self._wake._waiters:
                time.sleep(0.001)
            asking.start()
            while tiny.engine.scheduler.idle and not answers:
                time.sleep(0.001)

    monkeypatch.setattr(engine, "EngineThread", Slow)
    local.start()
    asking.join(SOON)
    stop.set()
    local.thread.close()
    asking.join(SOON)
    assert answers and isinstance(answers[-1][1], Generation)
    assert answers[-1][1].finish_reason != "cancelled"


def test_the_thread_ends_while_it_waits(tiny, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    thread = EngineThread(tiny.engine)
    thread.start()
    elsewhere(lambda: prepared(thread))
    state = submitted(tiny, thread, ask(6))
    thread.close()
    assert not thread.alive and not tiny.heard[state].end
    tiny.finish()


def test_a_closed_engine_refuses_what_nobody_would_answer(tiny_llama):
    one = TinyEngine(tiny_llama)
    request = replace(ask(1, "base"), effects=True, trace=False)
    prepared = one.engine.prepare(request, [])
    state = one.submit(request, [])
    one.finish()
    one.engine.start()
    one.engine.close()
    with pytest.raises(RamoleError, match="The model was closed meanwhile"):
        one.engine.submit(prepared)
    state.logprobs = [float("nan")]  # as though they had to be read
    with pytest.raises(RamoleError, match="The model was closed meanwhile"):
        one.engine.read_again(prepared, state, lambda *_: None)
    stream = one.engine.stream(
        [prepared], cancelled=lambda: False, waiting=lambda index, place: None
    )
    with pytest.raises(RamoleError, match="The model was closed meanwhile"):
        list(stream)
