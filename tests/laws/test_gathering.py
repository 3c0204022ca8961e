"""Where nothing runs, a request waits a moment for those that are being prepared beside it."""

import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ramole_core import Generation, RamoleError, Step
from ramole_core.engine import engine, engine_thread
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.prefill import IDLE_CHUNKS
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.request_stream import RequestStream
from tests.support.schedules import ask
from tests.support.serving import wait_until
from tests.support.tiny_engine import TinyEngine
from tests.support.workers import at_once

LONG, NEVER = 3600.0, 1e9
"""Seconds; a machine is rarely up for thirty years."""


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


@pytest.fixture(autouse=True)
def never(monkeypatch):
    """No wait ends by the clock."""
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)


@pytest.fixture
def thread(tiny):
    made = EngineThread(tiny.engine)
    made.start()
    yield made
    made.close()
    tiny.engine.forget_prefixes()


def prepared(thread):
    with thread.expecting():
        pass


def submitted(tiny, thread, request):
    state = tiny.submit(request, [("ant", 2)])
    thread.wake()
    return state


def waits(tiny, thread):
    """Whether the thread has work, and waits for more."""
    return bool(thread._wake._waiters) and not tiny.engine.scheduler.idle


def ended(tiny, *states):
    wait_until(lambda: all(tiny.heard[state].end for state in states))
    return True


def test_who_comes_together_is_read_together(tiny, thread):
    before = tiny.engine.stats()["prefill_forwards"]
    come, states = threading.Event(), []

    def later():
        with thread.expecting():
            come.set()
            wait_until(lambda: states and waits(tiny, thread))  # it is prepared
        states.append(submitted(tiny, thread, replace(ask(5), prompt="quite another")))

    def first():
        come.wait()
        prepared(thread)
        states.append(submitted(tiny, thread, ask(5)))

    at_once(first, later)
    assert ended(tiny, *states)
    assert tiny.engine.stats()["prefill_forwards"] == before + 1


def test_nobody_waits_for_itself_nor_for_one_that_was_refused(tiny, thread):
    prepared(thread)
    assert ended(tiny, submitted(tiny, thread, ask(6)))

    def refused():
        with suppress(RamoleError), thread.expecting():
            raise RamoleError("no such adapter")

    at_once(refused)
    assert not thread.expects
    assert ended(tiny, submitted(tiny, thread, ask(6)))


def test_nobody_waits_long_for_one_that_never_comes(tiny, thread, monkeypatch):
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", LONG)
    clock = SimpleNamespace(now=7.0)
    monkeypatch.setattr(engine_thread, "time", SimpleNamespace(monotonic=lambda: clock.now))
    wait_until(lambda: thread._wake._waiters)
    at_once(lambda: prepared(thread))  # and was never submitted
    state = submitted(tiny, thread, ask(6))
    wait_until(lambda: waits(tiny, thread))
    clock.now += LONG - 1
    thread.wake()
    wait_until(lambda: waits(tiny, thread))
    assert not tiny.heard[state].steps and not tiny.heard[state].end
    clock.now += 1
    thread.wake()
    assert ended(tiny, state)
    monkeypatch.setattr(engine_thread, "GATHER_SECONDS", NEVER)
    assert ended(tiny, submitted(tiny, thread, ask(5))), "it is forgotten"


def test_who_waits_for_a_next_token_does_not_wait_for_others(tiny, thread, monkeypatch):
    step, go_on = tiny.engine.step, threading.Event()

    def held():
        if any(row.new for row in tiny.engine.scheduler.batch.rows):
            go_on.wait()
        return step()

    monkeypatch.setattr(tiny.engine, "step", held)
    long = submitted(tiny, thread, ask(4, max_new_tokens=400))
    wait_until(lambda: tiny.heard[long].steps)
    at_once(lambda: prepared(thread))
    other = submitted(tiny, thread, ask(6))
    go_on.set()
    assert ended(tiny, other, long)


def test_a_request_that_comes_while_the_thread_begins_is_answered(tiny, monkeypatch):
    """The thread finds nothing to do and waits, before whoever began it goes on; a long answer, so
    that it is not over by then."""
    local, answers = tiny.engine, []
    asked = tiny.engine.prepare(ask(5, max_new_tokens=400), tiny.chosen([("ant", 2)]))
    stop = threading.Event()

    def ask_now():
        tell = {"waiting": lambda *place: None, "fitting": lambda *how: None}
        answers.extend(local.stream([asked], cancelled=stop.is_set, **tell))

    asking = threading.Thread(target=ask_now, daemon=True)

    class Slow(EngineThread):
        def start(self):
            super().start()
            wait_until(lambda: self._wake._waiters)
            asking.start()
            wait_until(lambda: answers or not tiny.engine.scheduler.idle)

    monkeypatch.setattr(engine, "EngineThread", Slow)
    local.start()
    asking.join()
    stop.set()
    local.thread.close()
    asking.join()
    assert answers and isinstance(answers[-1][1], Generation)
    assert answers[-1][1].finish_reason != "cancelled"


def test_the_thread_ends_while_it_waits(tiny):
    thread = EngineThread(tiny.engine)
    thread.start()
    at_once(lambda: prepared(thread))
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


# --- how much of a prompt is read -----------------------------------------------------------------

CHUNK = 16


@pytest.fixture(scope="module")
def small_chunks(tiny_llama):
    made = TinyEngine(tiny_llama, EngineSizes(prefill_chunk=CHUNK))
    yield made
    made.engine.close()


def test_tokens_that_are_read_are_counted_until_the_first_token(small_chunks):
    """Of two prompts, one of more chunks than the other; nothing after the first token."""
    asked = [
        small_chunks.engine.prepare(ask(words), small_chunks.chosen([("ant", 2)]))
        for words in (6, 5 * CHUNK)
    ]
    heard, events = {0: [], 1: []}, []

    def reading(index, done, of):
        heard[index].append((done, of))
        events.append(("read", index, done < of))

    stream = RequestStream(
        small_chunks.engine,
        asked,
        cancelled=lambda: False,
        waiting=lambda *_: None,
        reading=reading,
    )
    for index, item in stream:
        if isinstance(item, Step):
            events.append(("token", index, False))
    sizes = [len(one.prompt.ids) for one in asked]
    assert sizes[1] > 3 * CHUNK * IDLE_CHUNKS > 3 * sizes[0] / 2
    for index, size in enumerate(sizes):
        done = [tokens for tokens, of in heard[index] if of == size]
        assert len(done) == len(heard[index]) and done == sorted(set(done)) and done[-1] == size
        first = events.index(("token", index, False))
        assert not any(one == ("read", index, True) for one in events[first:])
    assert len(heard[1]) > 3  # in pieces


class Leaving(RequestState):
    """A request whose pages are given back between two looks at them."""

    sequence = property(lambda self: self.looks.pop(0))


def test_a_look_at_a_request_that_ends_meanwhile_is_no_fault():
    state = Leaving.__new__(Leaving)
    state.looks = [SimpleNamespace(length=7), None]
    assert state.fed == 7


def test_no_progress_goes_back_when_a_request_ends(small_chunks):
    """Its pages are given back at once, and its answer comes at the end of the step."""
    heard, ended = [], []
    stream = RequestStream(
        small_chunks.engine,
        [small_chunks.engine.prepare(ask(6), small_chunks.chosen([("ant", 2)]))],
        cancelled=lambda: bool(ended),
        waiting=lambda *_: None,
        reading=lambda index, done, of: heard.append(done),
    )
    items = iter(stream)
    next(items)
    (state,) = stream._open
    stream._report_places()  # as between two looks at what has come
    assert heard == [state.prompt_length]
    ended.append(True)
    state.cancel()
    small_chunks.engine.step()
    assert state.fed == 0
    stream._report_places()
    assert heard == [state.prompt_length]
    assert [item for _, item in items][-1].finish_reason == "cancelled"
