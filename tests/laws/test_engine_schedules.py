"""Adapters in use stay in the bank, nothing grows, and what could never fit is told so."""

import gc
from dataclasses import replace

import pytest

from lab.benchmarks.machine import anonymous_mib
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.layers import Bank
from ramole_core.request import Request
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

PAGES = 8
"""Of the narrow engine's bank: two adapters, for four rows."""


@pytest.fixture(scope="module")
def narrow(tiny_llama, tmp_path_factory):
    """Few rows, small chunks, little memory: whatever can be moved, evicted or split is."""
    first = TinyEngine(tiny_llama)
    page, token = first.engine.bank.page_bytes, first.engine._kv.token_bytes
    return TinyEngine(
        tiny_llama,
        EngineSizes(
            max_batch=4,
            max_queue=10_000,
            prefill_chunk=16,
            kv_cache_bytes=320 * token,
            device_cache_bytes=PAGES * page,
            host_cache_bytes=12 * page,
            units_dir=tmp_path_factory.mktemp("units"),
        ),
    )


ADAPTERS, TURNS = 30, 90


def turn_of(turn: int) -> tuple[str, Request]:
    """An adapter and its request, whose answer may be as long as any turn's."""
    return f"own{turn * 7 % ADAPTERS}", ask(1 + turn % 3, "selection", max_new_tokens=7)


def crossed(tiny: TinyEngine, expected: dict[str, list[int]]) -> int:
    """How many of 90 requests, each with one of 30 adapters, get tokens that are not its own."""
    states = {}
    for turn in range(TURNS):
        name, request = turn_of(turn)
        request = replace(request, max_new_tokens=3 + turn % 5)
        states[tiny.submit(request, [(name, 3)])] = (name, request)
        if turn % 2:
            tiny.engine.step()
    tiny.finish()
    wrong = 0
    for state, (name, request) in states.items():
        heard = tiny.heard.pop(state)
        wrong += heard.tokens != expected[name][: request.max_new_tokens]
    return wrong


@pytest.fixture(scope="module")
def own_tokens(tiny_llama):
    """Of each adapter, whose prompt is always the same."""
    roomy, turns = TinyEngine(tiny_llama), [turn_of(turn) for turn in range(TURNS)]
    asked = dict(turns)
    assert len(asked) == ADAPTERS and all(asked[name] == request for name, request in turns)
    return {name: roomy.alone(request, [(name, 3)]) for name, request in asked.items()}


def test_no_request_ever_runs_with_anothers_adapter(narrow, own_tokens):
    assert len({tuple(tokens) for tokens in own_tokens.values()}) > 20  # they can be told apart
    assert crossed(narrow, own_tokens) == 0


def test_that_would_be_noticed_if_adapters_in_use_were_not_pinned(narrow, own_tokens, monkeypatch):
    pinned = Bank.acquire

    def acquire(self, key, load, **options):
        slot = pinned(self, key, load, **options)
        if slot is not None:
            slot.pins -= 1
        return slot

    monkeypatch.setattr(Bank, "acquire", acquire)
    monkeypatch.setattr(Bank, "release", lambda self, slot: None)
    try:
        wrong = crossed(narrow, own_tokens)
    except (IndexError, ValueError, RuntimeError):  # a row's adapter has left the bank altogether
        narrow.heard.clear()
        wrong = 90
    assert wrong > 5


def test_a_request_that_could_never_fit_is_told_what_to_do(narrow):
    big = [("whale", PAGES + 1)]
    with pytest.raises(Exception, match="rank units.*RAMOLE_DEVICE_CACHE_MB"):
        narrow.submit(ask(2, "selection"), big)
    with pytest.raises(Exception, match="tokens.*RAMOLE_KV_CACHE_MB"):
        narrow.submit(ask(2, "base", max_new_tokens=900), ())


def test_nothing_grows_over_1000_requests(tiny_llama, tmp_path):
    page = TinyEngine(tiny_llama).engine.bank.page_bytes
    sizes = EngineSizes(
        device_cache_bytes=8 * PAGES * page, host_cache_bytes=99 * page, units_dir=tmp_path
    )
    narrow, memory = TinyEngine(tiny_llama, sizes), []
    every = [(f"many{turn % 60}", 1 + turn % 4) for turn in range(120)]
    narrow.learn([(name, f"{name}_{rank}") for name, rank in every])  # or gates are made anew
    for turn in range(1000):
        request = ask(1 + turn % 2, "selection", max_new_tokens=1)
        if turn % 5 == 0:
            request = replace(request, method="ramole", trace=True, max_new_tokens=2)
        narrow.submit(request, [every[turn % 120]], session=str(turn))
        if turn % 40 == 39:
            narrow.finish()
            narrow.heard.clear()
        if turn in (299, 999):
            memory.append(anonymous_mib())
    gc.collect()
    assert sum(type(thing) is RequestState for thing in gc.get_objects()) <= 2
    stats = narrow.engine.stats()
    assert stats["host_bytes"] <= narrow.engine.sizes.host_cache_bytes
    assert len(narrow.engine.bank.slots) <= 8 * PAGES
    assert len(narrow.engine.bank.tensors.routers) == 1
    if None not in memory:
        assert memory[1] - memory[0] < 12  # MiB, of 700 requests more
