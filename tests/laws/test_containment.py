"""A fault ends its own request, with one sentence; a merge is made once, before it waits."""

import pytest
import torch

import ramole_core.composition.fusion as fusion_file
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
from ramole_core.engine.engine import EngineSizes
from ramole_core.errors import Busy, RamoleError
from ramole_core.methods import Method
from ramole_core.request import Generation, Request
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.tiny_engine import TinyEngine

ADAPTERS = [("ant", 2), ("bee", 3)]


def ask(prompt, method, **options):
    return Request(
        prompt, method=method, **{"max_new_tokens": 6, "ignore_eos": True, "trace": False} | options
    )


OTHERS = [
    (ask("one two", "ramole"), [("cat", 4), ("dog", 1)]),
    (ask("a longer prompt than that", "mixture"), [("dog", 1), ("ant", 2)]),
    (ask("b", "base"), []),
]


@pytest.fixture
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


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
    faulty = tiny.submit(request, adapters)
    states = [tiny.submit(other, contents) for other, contents in OTHERS]
    tiny.finish()
    for state, tokens in zip(states, alone, strict=True):
        assert isinstance(tiny.heard[state].end, Generation)
        assert tiny.heard[state].tokens == tokens
    assert not any(slot.pins for slot in tiny.engine.bank.slots), "what it held was given back"
    assert tiny.engine.stats()["kv_bytes"] == 0
    return tiny.heard[faulty]


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

    heard = with_others(tiny, ask("it fails", made(score)))
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
    heard = with_others(tiny, ask("it fails", made(score)))
    assert isinstance(heard.end, RamoleError)
    with pytest.raises(RamoleError, match=sentence):
        raise heard.end


def test_the_same_gate_without_a_fault_answers(tiny, made):
    heard = with_others(tiny, ask("it works", made(fine)))
    assert isinstance(heard.end, Generation) and len(heard.tokens) == 6


def test_a_fault_at_admission_ends_that_request_alone(tiny, monkeypatch):
    pin = tiny.engine._placer.pin

    def faulty(placement):
        if any(held.key == "ant_2" for held in placement.held) and len(placement.held) == 1:
            raise OSError("the disk is gone")
        return pin(placement)

    monkeypatch.setattr(tiny.engine._placer, "pin", faulty)
    heard = with_others(tiny, ask("it fails", "selection"), [("ant", 2)])
    assert isinstance(heard.end, RamoleError) and "the disk is gone" in str(heard.end)


def test_a_fault_in_a_decision_is_one_sentence_to_its_caller(tiny, monkeypatch):
    monkeypatch.setattr(type(METHODS["mixture"]), "decide", lambda self, ask: [][1])
    with pytest.raises(RamoleError, match="Method mixture failed on this request .IndexError"):
        tiny.submit(ask("it fails", "mixture"), ADAPTERS)


@pytest.fixture
def merges(monkeypatch):
    """How often `fusion` has fused a module."""
    counted, fuse = [], fusion_file.fuse

    def count(loras, shares):
        counted.append(1)
        return fuse(loras, shares)

    monkeypatch.setattr(fusion_file, "fuse", count)
    return counted


def test_a_merge_that_waits_is_made_once_and_outside_a_step(tiny_llama, merges):
    page = TinyEngine(tiny_llama).engine.bank.page_bytes
    tiny = TinyEngine(tiny_llama, EngineSizes(device_cache_bytes=8 * page))
    long = tiny.submit(ask("a", "selection", max_new_tokens=50), [("whale", 7)])
    tiny.engine.step()
    waiting = tiny.submit(ask("b", "fusion"), [("cat", 4), ("dog", 3)])
    made = len(merges)
    assert made == len(tiny.shapes), "it was made by whoever asked"
    for _ in range(40):
        tiny.engine.step()
    assert tiny.engine.scheduler.waiting == 1 and not tiny.heard[waiting].tokens
    tiny.finish()
    assert isinstance(tiny.heard[waiting].end, Generation)
    assert isinstance(tiny.heard[long].end, Generation)
    assert len(merges) == made
    tiny.alone(ask("again", "fusion"), [("cat", 4), ("dog", 3)])
    assert len(merges) == made, "the same merge is remembered"


def test_a_merge_that_can_never_fit_is_refused_unmade_and_starves_nobody(tiny_llama, merges):
    page = TinyEngine(tiny_llama).engine.bank.page_bytes
    tiny = TinyEngine(tiny_llama, EngineSizes(device_cache_bytes=8 * page))
    with pytest.raises(RamoleError, match="have 9 rank units, and the device holds 8; ask for"):
        tiny.submit(ask("b", "fusion"), [("cat", 9), ("dog", 3)])
    assert not merges
    state = tiny.submit(ask("c", "selection"), [("ant", 2)])
    tiny.finish()
    assert isinstance(tiny.heard[state].end, Generation)


def test_a_merge_is_forgotten_with_its_adapters(tiny):
    tiny.alone(ask("a", "fusion"), ADAPTERS)
    store = tiny.engine.store
    assert store.makes == 1
    store.keep_only([])
    tiny.alone(ask("a", "fusion"), ADAPTERS)
    assert store.makes == 2


def test_lora_is_what_a_merge_gives():
    loras = [Lora(A=torch.ones(1, 3), B=torch.ones(2, 1)), None]
    merged = fusion_file.fuse(loras, (0.5, 0.5))
    assert merged is not None and torch.equal(merged.A, torch.full((1, 3), 0.5))


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
        tiny.submit(ask("it fails", name), ADAPTERS)
    assert tiny.engine.scheduler.idle


def test_a_merge_larger_than_it_says_is_refused(tiny_llama, made, monkeypatch):
    page = TinyEngine(tiny_llama).engine.bank.page_bytes
    tiny, name = TinyEngine(tiny_llama, EngineSizes(device_cache_bytes=8 * page)), made(fine)

    def side_by_side(path, loras):
        here = [lora for lora in loras if lora is not None]
        return Lora(torch.cat([m.A for m in here]), torch.cat([m.B for m in here], dim=1))

    monkeypatch.setattr(
        METHODS[name],
        "decide",
        lambda ask: Decision(even(ask.present), merge=Merge(side_by_side, 5)),
    )
    with pytest.raises(RamoleError, match="have 10 rank units, and the device holds 8"):
        tiny.submit(ask("too large", name), [("cat", 5), ("dog", 5)])


def test_merges_that_differ_are_two(tiny):
    weights = ((0.5, 0.5), (0.9, 0.1))
    tokens = [
        tiny.alone(ask("a", "fusion", adapters=("ant", "bee"), weights=w), ADAPTERS)
        for w in (*weights, weights[0])
    ]
    assert tiny.engine.store.makes == 2 and tokens[0] == tokens[2]


def test_waiting_merges_are_bounded_by_the_host_cache(tiny_llama):
    made = TinyEngine(tiny_llama)
    made.alone(ask("a", "fusion"), ADAPTERS)
    one = made.engine.store.nbytes
    tiny = TinyEngine(tiny_llama, EngineSizes(host_cache_bytes=2 * one, max_batch=1))
    running = tiny.submit(ask("a", "base", max_new_tokens=30), [])
    tiny.engine.step()
    with pytest.raises(Busy, match="merges of the requests that wait"):
        for n in range(20):
            request = ask("b", "fusion", adapters=("ant", "bee"), weights=(1.0, 0.01 * n))
            tiny.submit(request, ADAPTERS)
    tiny.finish()
    assert isinstance(tiny.heard[running].end, Generation)


def test_a_request_without_adapters_is_the_bases(tiny):
    base = tiny.alone(ask("a", "base"), [])
    for method in METHODS:
        if not METHODS[method].brings:
            assert tiny.alone(ask("a", method), []) == base


def test_nothing_is_made_for_what_was_stopped(tiny, merges):
    state = tiny.engine.submit(
        tiny.engine.prepare(ask("a", "fusion"), tiny.chosen(ADAPTERS)), stopped=True
    )
    state.cancel()
    tiny.finish()
    assert not merges and state.finish_reason == "cancelled"
