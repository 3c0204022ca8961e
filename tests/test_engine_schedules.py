"""Whatever happens around a request, its tokens are those it gets alone (float32)."""

import gc
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from ramole_core.benchmarks.machine import anonymous_mib
from ramole_core.composition import METHODS
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.layers import Bank
from ramole_core.request import Generation, Request
from tests.tiny_engine import TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1, "elk": 3, "fox": 5}
WORDS = "one two three four five six seven eight nine ten a b c d e f g".split()
PAGES = 16
"""Of the narrow engine's bank: the six adapters have 22."""


def ask(words: int, method: str, **options) -> Request:
    prompt = " ".join((WORDS * 9)[:words])
    return Request(
        prompt, method=method, **{"max_new_tokens": 6, "ignore_eos": True, "trace": False} | options
    )


JOBS = [
    (ask(1, "base"), ()),
    (ask(3, "selection"), ("ant",)),
    (ask(40, "selection", max_new_tokens=9), ("bee",)),
    (ask(2, "ramole"), ("ant", "cat", "dog")),
    (ask(25, "ramole", trace=True), ("bee", "dog")),
    (ask(7, "ramole", temperature=1.0, seed=4), ("elk", "fox")),
    (ask(5, "mixture", max_new_tokens=12), ("fox", "ant", "elk")),
    (ask(9, "fusion"), ("cat", "elk")),
    (ask(11, "uniform_router", trace=True), ("dog", "fox")),
    (ask(30, "random_router", temperature=0.7, top_p=0.8, seed=9), ("bee", "ant")),
    (ask(4, "mixture", adapters=("cat", "bee"), weights=(0.2, 1.5)), ("cat", "bee")),
    (ask(60, "base", max_new_tokens=2), ()),
    (ask(6, "ramole_plus", trace=True), ("dog", "elk", "cat")),
    (ask(33, "similarity", options={"temperature": 0.3}), ("fox", "bee")),
]
JOBS += [
    (ask(8 + n, method, trace=True), ("cat", "dog", "ant"))
    for n, method in enumerate(sorted(set(METHODS) - {request.method for request, _ in JOBS}))
]
"""Every method of the registry is among them."""
EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, len(JOBS) - 1)),
    st.tuples(st.just("ask"), st.integers(0, len(JOBS) - 1)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("replace"), st.sampled_from(sorted(RANKS))),
    st.tuples(st.just("remove"), st.sampled_from(sorted(RANKS))),
)


@pytest.fixture(scope="module")
def oracle(tiny_llama):
    """The tokens of a job alone, in an engine with room for all; versions are those of RANKS."""
    roomy = TinyEngine(tiny_llama)

    @cache
    def tokens(job: int, versions: tuple[int, ...]) -> list[int]:
        request, names = JOBS[job]
        return roomy.alone(request, contents(names, versions))

    return tokens


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


@pytest.fixture(autouse=True)
def nobody_stays(monkeypatch):
    """Adapters leave the bank as soon as nobody uses them, or the bank is never in doubt."""
    monkeypatch.setattr("ramole_core.layers.bank.SLACK", 2)


def contents(names, versions) -> list[tuple[str, int]]:
    return [
        (f"{name}{version}", RANKS[name]) for name, version in zip(names, versions, strict=True)
    ]


def play(tiny: TinyEngine, events) -> list[tuple[RequestState, int, tuple[int, ...]]]:
    """Run a schedule to its end: each state with its job and its adapters' versions."""
    version = dict.fromkeys(RANKS, 0)
    asked = []
    for what, argument in events:
        if what == "ask":
            request, names = JOBS[argument]
            versions = tuple(version[name] for name in names)
            state = tiny.submit(request, contents(names, versions), session=str(argument % 3))
            asked.append((state, argument, versions))
        elif what == "step":
            for _ in range(argument):
                tiny.engine.step()
        elif what == "cancel" and asked:
            asked[argument % len(asked)][0].cancel()
        elif what == "replace":  # the same name, other weights
            version[argument] += 1
        elif what == "remove":  # as the pool does it: files and host cache, at once
            kept = [f"{name}{version[name]}_{RANKS[name]}" for name in RANKS if name != argument]
            tiny.engine.store.keep_only(kept)
    tiny.finish()
    return asked


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENTS, min_size=6, max_size=40))
def test_tokens_are_the_same_alone_and_in_any_schedule(oracle, narrow, events):
    narrow.heard.clear()
    asked = play(narrow, events)
    for state, job, versions in asked:
        heard, expected = narrow.heard.pop(state), oracle(job, versions)
        assert isinstance(heard.end, Generation), heard.end
        if heard.end.finish_reason == "cancelled":
            assert state.cancelled
            assert heard.tokens == expected[: len(heard.tokens)]
        else:
            assert heard.tokens == expected
            assert heard.end.new_tokens == JOBS[job][0].max_new_tokens
    stats = narrow.engine.stats()
    assert stats["kv_bytes"] == 0
    assert not any(slot.pins for slot in narrow.engine.bank.slots)
    assert narrow.engine.bank.B[0][0].shape[1] <= PAGES


def test_the_schedules_meet_evictions_waiting_and_chunks(narrow):
    """Or the property above would be an easy one: its engine is as narrow as it claims."""
    before, chunks = narrow.engine.stats(), 0
    everyone = [("ask", job) for job in (2, 9, 5, 6, 11, 3, 4, 7, 8, 10)]
    for state, *_ in play(narrow, [*everyone, ("step", 2), *everyone[::-1]]):
        chunks += len(state.prompt_ids) > 2 * narrow.engine.sizes.prefill_chunk
        del narrow.heard[state]
    after = narrow.engine.stats()
    assert after["bank_evictions"] - before["bank_evictions"] > 10
    assert after["host_reads"] - before["host_reads"] > 5
    assert chunks > 2


def crossed(tiny: TinyEngine, expected: dict[str, list[int]]) -> int:
    """How many of 90 requests, each with one of 30 adapters, get tokens that are not its own."""
    states = {}
    for turn in range(90):
        name = f"own{turn * 7 % 30}"
        request = ask(1 + turn % 3, "selection", max_new_tokens=3 + turn % 5)
        states[tiny.submit(request, [(name, 3)])] = (name, request)
        if turn % 2:
            tiny.engine.step()
    tiny.finish()
    wrong = 0
    for state, (name, request) in states.items():
        heard = tiny.heard.pop(state)
        wrong += heard.tokens != expected[name, request.prompt][: request.max_new_tokens]
    return wrong


@pytest.fixture(scope="module")
def own_tokens(tiny_llama):
    roomy = TinyEngine(tiny_llama)
    found = {}
    for number in range(30):
        for words in (1, 2, 3):
            request = ask(words, "selection", max_new_tokens=7)
            found[f"own{number}", request.prompt] = roomy.alone(request, [(f"own{number}", 3)])
    return found


def test_no_request_ever_runs_with_anothers_adapter(narrow, own_tokens):
    assert len({tuple(tokens) for tokens in own_tokens.values()}) > 60  # they can be told apart
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


def test_nothing_grows_over_2000_requests(tiny_llama, tmp_path):
    page = TinyEngine(tiny_llama).engine.bank.page_bytes
    sizes = EngineSizes(
        device_cache_bytes=8 * PAGES * page, host_cache_bytes=99 * page, units_dir=tmp_path
    )
    narrow, memory = TinyEngine(tiny_llama, sizes), []
    for turn in range(2000):
        request = ask(1 + turn % 2, "selection", max_new_tokens=2)
        if turn % 5 == 0:
            request = replace(request, method="ramole", trace=True)
        narrow.submit(request, [(f"many{turn % 150}", 1 + turn % 4)], session=str(turn))
        if turn % 40 == 39:
            narrow.finish()
            narrow.heard.clear()
        if turn in (599, 1999):
            memory.append(anonymous_mib())
    gc.collect()
    assert sum(type(thing) is RequestState for thing in gc.get_objects()) <= 2
    stats = narrow.engine.stats()
    assert stats["host_bytes"] <= narrow.engine.sizes.host_cache_bytes
    assert len(narrow.engine.bank.slots) <= 8 * PAGES
    assert len(narrow.engine.bank.routers) == 1
    if None not in memory:
        assert memory[1] - memory[0] < 6  # MiB; a state kept by each of 1,400 would be more
