"""A fault ends its own request, with one sentence; whoever waits gets in; a merge is made once."""

import pytest
import torch

from ramole_core import Busy, Generation, RamoleError
from ramole_core.composition import (
    METHODS,
    Composition,
    Decision,
    Gate,
    Lora,
    Merge,
    even,
    forget,
    register,
)
from ramole_core.engine import pages
from ramole_core.engine.engine import EngineSizes
from ramole_core.methods import Method
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

ADAPTERS = [("ant", 2), ("bee", 3)]
OTHERS = [
    (ask(2, "ramole"), [("cat", 4), ("dog", 1)]),
    (ask(5, "mixture"), [("dog", 1), ("ant", 2)]),
    (ask(1, "base"), []),
]
CHAT = [("one two three", "four five")]


@pytest.fixture
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


def narrow(folder, pages: int = 8, **sizes) -> TinyEngine:
    """An engine whose bank has so many pages."""
    page = TinyEngine(folder).engine.bank.page_bytes
    return TinyEngine(folder, EngineSizes(device_cache_bytes=pages * page, **sizes))


@pytest.fixture
def made():
    """Registers methods that are forgotten after the test."""
    names = []

    def add(score, name="trial_fault"):
        class Made(Composition):
            row = Method(name, "a test", "a gate that may fail")

            def decide(self, ask):
                return Decision(even(ask.present), gate=Gate(score=score))

        register(Made)
        names.append(name)
        return name

    yield add
    for name in names:
        forget(name)


def with_others(tiny, request, adapters=ADAPTERS):
    """Everybody at once: the end of `request`, after checking that nobody else felt it."""
    alone = [tiny.alone(other, contents) for other, contents in OTHERS]
    heard, *others = tiny.run((request, adapters), *OTHERS)
    assert [other.tokens for other in others] == alone
    assert all(isinstance(other.end, Generation) for other in others)
    holds_nothing(tiny)
    return heard


def holds_nothing(tiny):
    assert not any(slot.pins for slot in tiny.engine.bank.slots), "what it held was given back"
    assert tiny.engine.stats()["kv_bytes"] == 0


def fine(signal):
    return torch.zeros(*signal.x.shape[:-1], 2)


@pytest.mark.parametrize("when", ["at once", "at the third token"])
def test_a_fault_in_a_methods_own_score_ends_its_request_alone(tiny, made, when):
    forwards = set()  # a forward asks once for each tile of each module

    def score(signal):
        forwards.add(tiny.engine.stats()["forwards"])
        if when == "at once" or len(forwards) > 3:
            raise ZeroDivisionError("division by zero")
        return fine(signal)

    heard = with_others(tiny, ask(4, made(score)))
    assert isinstance(heard.end, RamoleError)
    assert "trial_fault failed on this request (ZeroDivisionError: division by zero)" in str(
        heard.end
    )
    assert len(heard.tokens) == (0 if when == "at once" else 3)


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda signal: torch.zeros(3, 3), r"a score of shape \(3, 3\), not"),
        (lambda signal: fine(signal) + float("nan"), "scores that are not finite"),
    ],
)
def test_a_score_that_cannot_be_is_a_fault(tiny, made, score, sentence):
    heard = with_others(tiny, ask(4, made(score)))
    assert isinstance(heard.end, RamoleError)
    with pytest.raises(RamoleError, match=sentence):
        raise heard.end


def test_a_fault_at_admission_ends_that_request_alone(tiny, monkeypatch):
    pin = tiny.engine._placer.pin

    def faulty(placement):
        if any(held.key == "ant_2" for held in placement.held) and len(placement.held) == 1:
            raise OSError("the disk is gone")
        return pin(placement)

    monkeypatch.setattr(tiny.engine._placer, "pin", faulty)
    heard = with_others(tiny, ask(4, "selection"), [("ant", 2)])
    assert isinstance(heard.end, RamoleError) and "the disk is gone" in str(heard.end)


def test_a_fault_in_a_decision_is_one_sentence_to_its_caller(tiny, monkeypatch):
    monkeypatch.setattr(type(METHODS["mixture"]), "decide", lambda self, ask: [][1])
    with pytest.raises(RamoleError, match="Method mixture failed on this request .IndexError"):
        tiny.submit(ask(4, "mixture"), ADAPTERS)


def test_a_merge_that_waits_is_made_once_and_outside_a_step(tiny_llama):
    tiny = narrow(tiny_llama)
    request, contents = ask(2, "fusion"), [("cat", 4), ("dog", 3)]
    long = tiny.submit(ask(1, "selection", max_new_tokens=50), [("whale", 7)])
    tiny.engine.step()
    waiting = tiny.submit(request, contents)
    assert tiny.engine.store.makes == 1, "it was made by whoever asked"
    partly = tiny.submit(ask(3, "mixture"), [("ant", 1), ("bee", 4)])  # one of them has room
    for _ in range(40):
        tiny.engine.step()
    assert tiny.engine.scheduler.waiting == 2 and not tiny.heard[waiting].tokens
    tiny.finish()
    assert all(tiny.heard[one].answer for one in (long, waiting, partly))
    holds_nothing(tiny)
    tiny.alone(request, contents)
    assert tiny.engine.store.makes == 1, "the same merge is remembered"


def test_a_merge_that_can_never_fit_is_refused_unmade_and_starves_nobody(tiny_llama):
    tiny = narrow(tiny_llama)
    with pytest.raises(RamoleError, match="have 9 rank units, and the device holds 8; ask for"):
        tiny.submit(ask(2, "fusion"), [("cat", 9), ("dog", 3)])
    assert not tiny.engine.store.makes
    assert tiny.alone(ask(3, "selection"), [("ant", 2)])


def test_a_merge_is_forgotten_with_its_adapters(tiny):
    tiny.alone(ask(4, "fusion"), ADAPTERS)
    store = tiny.engine.store
    assert store.makes == 1
    store.keep_only([])
    tiny.alone(ask(4, "fusion"), ADAPTERS)
    assert store.makes == 2


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (lambda ask: Decision(torch.zeros(3, 3)), r"weights of size \(3, 3\)"),
        (
            lambda ask: Decision(even(ask.present), gate=Gate(offset=torch.zeros(5, 2))),
            r"offset of size \(5, 2\)",
        ),
        (lambda ask: Decision(even(ask.present), gate=Gate(own=1.0)), "needs `usual`"),
        (lambda ask: Decision(even(ask.present), gate=Gate(top=-1)), "top is -1"),
        (
            lambda ask: Decision(even(ask.present), gate=Gate(), merge=Merge(lambda *_: None, 1)),
            "neither a gate nor a bypass",
        ),
    ],
)
def test_a_decision_that_cannot_be_is_told_to_its_caller_alone(
    tiny, made, monkeypatch, decision, sentence
):
    name = made(fine)
    monkeypatch.setattr(METHODS[name], "decide", decision)
    with pytest.raises(RamoleError, match=sentence):
        tiny.submit(ask(4, name), ADAPTERS)
    assert tiny.engine.scheduler.idle


def test_a_merge_larger_than_it_says_is_refused(tiny_llama, made, monkeypatch):
    tiny, name = narrow(tiny_llama), made(fine)

    def side_by_side(path, loras):
        here = [lora for lora in loras if lora is not None]
        return Lora(torch.cat([m.A for m in here]), torch.cat([m.B for m in here], dim=1))

    monkeypatch.setattr(
        METHODS[name],
        "decide",
        lambda ask: Decision(even(ask.present), merge=Merge(side_by_side, 5)),
    )
    with pytest.raises(RamoleError, match="have 10 rank units, and the device holds 8"):
        tiny.submit(ask(4, name), [("cat", 5), ("dog", 5)])


def test_waiting_merges_are_bounded_by_the_host_cache(tiny_llama):
    made = TinyEngine(tiny_llama)
    made.alone(ask(4, "fusion"), ADAPTERS)
    one = made.engine.store.nbytes
    tiny = TinyEngine(tiny_llama, EngineSizes(host_cache_bytes=2 * one, max_batch=1))
    running = tiny.submit(ask(4, "base", max_new_tokens=30), [])
    tiny.engine.step()
    with pytest.raises(Busy, match="merges of the requests that wait"):
        for n in range(20):
            request = ask(4, "fusion", adapters=("ant", "bee"), weights=(1.0, 0.01 * n))
            tiny.submit(request, ADAPTERS)
    tiny.finish()
    assert isinstance(tiny.heard[running].end, Generation)


def test_nothing_is_made_for_what_was_stopped(tiny):
    state = tiny.engine.submit(
        tiny.engine.prepare(ask(4, "fusion"), tiny.chosen(ADAPTERS)), stopped=True
    )
    state.cancel()
    tiny.finish()
    assert not tiny.engine.store.makes and state.finish_reason == "cancelled"


# --- room and memory ------------------------------------------------------------------------------


def test_a_turn_that_needs_all_of_the_bank_is_not_passed_for_ever(tiny_llama):
    """Others come all the time, and each of them leaves less than it needs."""
    tiny = narrow(tiny_llama, 10, max_queue=1000)
    small = ask(5, max_new_tokens=6)
    tiny.submit(small, [("ant", 2)])
    state = tiny.submit(ask(4, history=CHAT), [("big", 9)], earlier=[[("cat", 2)]])
    for _ in range(60):
        tiny.submit(small, [("ant", 2)])
        tiny.engine.step()
    assert isinstance(tiny.heard[state].end, Generation), "nothing came of it"
    tiny.finish()
    assert all(heard.answer for heard in tiny.heard.values())


def test_a_fault_at_the_next_turns_adapters_ends_that_request_alone(tiny, monkeypatch):
    small, wanted = ask(5), tiny.alone(ask(5), [("ant", 2)])
    pin, unwanted = tiny.engine._placer.pin, ["big_9"]

    def failing(placement):
        if any(held.key in unwanted for held in placement.held) or not unwanted:
            raise RuntimeError("not to be had")
        return pin(placement)

    monkeypatch.setattr(tiny.engine._placer, "pin", failing)
    beside = tiny.submit(small, [("ant", 2)])
    later = tiny.submit(ask(4, history=CHAT), [("big", 9)], earlier=[[("cat", 2)]])
    tiny.finish()
    assert tiny.heard[beside].tokens == wanted
    assert "not to be had" in str(tiny.heard[later].end)
    off = [("cat", None, None, 50)]  # in what it answers
    answering = ask(5, "fusion", max_new_tokens=20, without=off)
    lost = tiny.submit(answering, [("cat", 2), ("dog", 3)])
    beside = tiny.submit(small, [("ant", 2)])
    while not tiny.heard[lost].steps:
        tiny.engine.step()
    unwanted.clear()
    tiny.finish()
    assert "not to be had" in str(tiny.heard[lost].end)
    assert tiny.heard[beside].tokens == wanted
    holds_nothing(tiny)


@pytest.mark.parametrize("works", [0, 1, 4])
def test_pages_that_cannot_be_made_now_are_made_later(tiny_llama, monkeypatch, works):
    """`works`: how many of the layers' tensors are made before one is not."""
    tiny = TinyEngine(tiny_llama, EngineSizes(kv_cache_bytes=2**22))
    long = ask(90, trace=True)  # more pages than are made at first
    wanted = tiny.alone(long, [("bee", 4)])
    tiny.engine.forget_prefixes()
    tiny.submit(long, [("bee", 4)])
    tiny.engine.step()
    monkeypatch.setattr(pages, "INITIAL_PAGES", 8)
    made, real = [], pages._zeros

    def zeros(like, shape):
        if len(made) >= works:
            raise torch.OutOfMemoryError("no memory")
        made.append(shape)
        return real(like, shape)

    monkeypatch.setattr(pages, "_zeros", zeros)
    with pytest.raises(torch.OutOfMemoryError):
        for n in range(40):
            tiny.submit(ask(90, system=str(n)), [("bee", 4)])
            tiny.engine.step()
    monkeypatch.setattr(pages, "_zeros", real)
    assert tiny.engine.scheduler.idle and not tiny.engine._kv._open
    holds_nothing(tiny)
    assert tiny.alone(long, [("bee", 4)]) == wanted
    before = tiny.engine._kv.memory.places
    tiny.run(*((ask(90, system=str(n)), [("bee", 4)]) for n in range(40)))
    assert tiny.engine._kv.memory.places > before


def test_a_request_that_waits_for_room_reserves_none(tiny_llama):
    tiny = narrow(tiny_llama)
    tiny.submit(ask(2, "selection"), [("ant", 5)])
    tiny.submit(ask(3, "mixture"), [("bee", 2), ("cat", 3)])  # room for the first of the two
    tiny.finish()
    assert all(heard.answer for heard in tiny.heard.values())
    assert not any(slot.pins for slot in tiny.engine.bank.slots)


def test_a_merge_of_other_weights_is_another(tiny):
    weights = ((0.5, 0.5), (0.9, 0.1))
    tokens = [
        tiny.alone(ask(2, "fusion", adapters=("ant", "bee"), weights=one), ADAPTERS)
        for one in (*weights, weights[0])
    ]
    assert tiny.engine.store.makes == 2 and tokens[0] == tokens[2]


def test_the_same_merge_of_other_adapters_is_another(tiny):
    first, other, again = (
        tiny.alone(ask(2, "fusion"), adapters)
        for adapters in (ADAPTERS, [("cat", 2), ("dog", 3)], ADAPTERS)
    )
    assert tiny.engine.store.makes == 2 and first == again != other
