"""What the page keeps of a session weighs in the store about what it takes in memory."""

import gc
import json
import sys
import threading
from types import FunctionType, ModuleType, SimpleNamespace

import numpy as np
import pytest

from ramole_core import Request
from tests.page.test_compare import ask as compare
from tests.support import fake_ramole
from tests.support.blocks import built
from tests.support.fake_ramole import FakeRamole
from ui.ask.answer import Live, answer
from ui.ask.talk import Talk
from ui.batch import run as batch_run
from ui.batch.layout import BatchLayout
from ui.batch.tab import BatchHandlers
from ui.compare.layout import CompareLayout
from ui.compare.link import Column
from ui.compare.tab import CompareHandlers
from ui.session.quota import quota_of

TOKENS = 300
ASKED = Request("Which boats? " * 50, max_new_tokens=TOKENS)
SHARED = (type, ModuleType, FunctionType, threading.Event, threading.Condition)


def real_bytes(value: object) -> int:
    """Of all that a value alone holds, by Python's own sizes."""
    seen, waiting, total = set(), [value], 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, SHARED):
            continue
        seen.add(id(one))
        total += one.nbytes if isinstance(one, np.ndarray) else sys.getsizeof(one)
        waiting += gc.get_referents(one)
    return total


@pytest.fixture
def ramole(monkeypatch, tmp_path):
    """A system whose traces have the sizes of a small model's."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(fake_ramole, "LAYERS", list(range(30)))
    monkeypatch.setattr(fake_ramole, "MODULES", list("qkvougd"))
    monkeypatch.setattr(batch_run, "MIN_PAUSE", 0.01)
    return FakeRamole(length=TOKENS)


def an_answer(ramole: FakeRamole) -> None:
    questions = Talk(ramole, None)
    asked = questions.begin("me")
    for _ in answer(ramole, ASKED, asked, beside=True):
        pass
    questions.ended("me", asked)


def earlier_turns(ramole: FakeRamole) -> None:
    questions = Talk(ramole, None)
    for name in ("first", "second"):
        live = Live()
        for _ in answer(ramole, ASKED, live, beside=False):
            pass
        assert live.run is not None
        questions.keep("me", name, live.run)


def a_batch(ramole: FakeRamole) -> None:
    row = json.dumps({"prompt": ASKED.prompt, "max_new_tokens": TOKENS}) + "\n"
    handlers = BatchHandlers(ramole, built(lambda: BatchLayout(ramole)))
    me = SimpleNamespace(session_hash="me", headers={})
    for _ in handlers.on_run(me, 20 * row, "jsonl", "mixture", 3, TOKENS):
        pass


def a_comparison(ramole: FakeRamole) -> None:
    columns = Column("mixture", 2), Column("mixture", 3)
    layout = built(lambda: CompareLayout(ramole))
    compare(CompareHandlers(ramole, layout), *columns, length=TOKENS)


@pytest.mark.parametrize("keep", [an_answer, earlier_turns, a_batch, a_comparison])
def test_what_is_kept_weighs_about_what_it_takes(ramole, keep):
    store = quota_of(ramole).presence.sessions
    keep(ramole)
    takes = sum(real_bytes(record.parts) for record in store._records.values())
    assert takes > 100_000, "nothing is kept"
    assert takes / 2 < store.bytes < 2 * takes
    store.leave("me")
    assert store.bytes == 0
