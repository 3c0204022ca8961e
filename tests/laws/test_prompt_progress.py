"""How much of a prompt is read, as a stream's caller gets it."""

from types import SimpleNamespace

import pytest

from ramole_core import Step
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.prefill import IDLE_CHUNKS
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.request_stream import RequestStream
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

CHUNK = 16


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    made = TinyEngine(tiny_llama, EngineSizes(prefill_chunk=CHUNK))
    yield made
    made.engine.close()


def test_tokens_that_are_read_are_counted_until_the_first_token(tiny):
    """Of two prompts, one of more chunks than the other; nothing after the first token."""
    asked = [tiny.engine.prepare(ask(words), tiny.chosen([("ant", 2)])) for words in (6, 5 * CHUNK)]
    heard, events = {0: [], 1: []}, []

    def reading(index, done, of):
        heard[index].append((done, of))
        events.append(("read", index, done < of))

    stream = RequestStream(
        tiny.engine,
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


def test_no_progress_goes_back_when_a_request_ends(tiny):
    """Its pages are given back at once, and its answer comes at the end of the step."""
    heard, ended = [], []
    stream = RequestStream(
        tiny.engine,
        [tiny.engine.prepare(ask(6), tiny.chosen([("ant", 2)]))],
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
    tiny.engine.step()
    assert state.fed == 0
    stream._report_places()
    assert heard == [state.prompt_length]
    assert [item for _, item in items][-1].finish_reason == "cancelled"
