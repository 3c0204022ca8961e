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
    even,
    forget,
    register,
)
from ramole_core.engine.engine import EngineSizes
from ramole_core.errors import RamoleError
from ramole_core.methods import Method
from ramole_core.request import Generation, Request
from tests.tiny_engine import TinyEngine

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
    calls = []

    def score(signal):
        calls.append(signal.path)
        modules = len(tiny.shapes)
        if when == "at once" or len(calls) > 3 * modules:
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
    pin = tiny.engine.scheduler._pin

    def faulty(placement):
        if any(held.key == "ant_2" for held in placement.held) and len(placement.held) == 1:
            raise OSError("the disk is gone")
        return pin(placement)

    monkeypatch.setattr(tiny.engine.scheduler, "_pin", faulty)
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
    assert store.merges == 1
    store.keep_only([])
    tiny.alone(ask("a", "fusion"), ADAPTERS)
    assert store.merges == 2


def test_lora_is_what_a_merge_gives():
    loras = [Lora(A=torch.ones(1, 3), B=torch.ones(2, 1)), None]
    merged = fusion_file.fuse(loras, (0.5, 0.5))
    assert merged is not None and torch.equal(merged.A, torch.full((1, 3), 0.5))
