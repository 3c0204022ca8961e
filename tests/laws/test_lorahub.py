"""LoraHub: weights found on examples by one row of the batch, and nobody else feels it."""

import math
import threading
from functools import partial

import numpy as np
import pytest
import torch

from ramole_core import Generation, RamoleError, Request, Step
from ramole_core.composition import METHODS, Tried, find_method
from ramole_core.composition.lorahub import MAX_WEIGHT, PENALTY, WeightSearch, objective
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.fitting import FitCache
from ramole_core.engine.pair_reading import encode_pairs
from ramole_core.engine.prompt import Turn
from ramole_core.engine.request_stream import RequestStream
from tests.support.tiny_engine import TinyEngine

PAIRS = [("one two", "three"), ("a b c d e", "f")]
NAMES = [("ant", 2), ("bee", 5), ("cat", 3)]
STEPS = 4


@pytest.fixture(scope="module")
def world(tiny_llama):
    return TinyEngine(tiny_llama, EngineSizes(max_batch=6, prefill_chunk=64))


@pytest.fixture
def tiny(world):
    """Nothing is remembered of earlier tests."""
    world.engine._reader._fit_cache = FitCache()
    world.engine.forget_prefixes()
    world.engine.store.keep_only([])
    return world


def hub(prompt="hello", *, steps=STEPS, **said):
    said = {"max_new_tokens": 5, "ignore_eos": True, "examples": PAIRS, **said}
    return Request(prompt, method="lorahub", options={"steps": steps}, **said)


def stream(tiny, requests, names=NAMES, **how):
    asked = [tiny.engine.prepare(one, tiny.chosen(names)) for one in requests]
    how = {"session": "me", "cancelled": lambda: False, "waiting": lambda *_: None, **how}
    return RequestStream(tiny.engine, asked, **how)


def answers(items) -> dict[int, Generation]:
    return {index: item for index, item in items if isinstance(item, Generation)}


def held(tiny):
    """What must be as it was: pages, rows, what is pinned or on its way through the bank."""
    stats = tiny.engine.stats()
    slots = [slot.key for slot in tiny.engine.bank.slots if slot.pins or slot.ephemeral]
    return slots, stats["kv_bytes"], stats["running"], stats["waiting"]


NOTHING = ([], 0, 0, 0)
PLAIN = Request("hello", method="mixture", max_new_tokens=5, ignore_eos=True)


def merges_of(tiny):
    """The methods of the merges in the host cache."""
    return [key[0] for key in tiny.engine.store._held if not isinstance(key, str)]


# --- the search -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "steps", "seed"),
    [(1, 1, -1), (1, 60, 5), (2, 2, 2**40), (3, 40, 5), (5, 25, 2**63 - 1), (12, 60, 5)],
)
def test_a_search_is_repeatable_and_stays_within_its_bounds(k, steps, seed):
    """Any seed that a request may have begins one."""
    target = np.linspace(-1.2, 1.4, k)
    runs = []
    for _ in range(2):
        search, asked = find_method("lorahub").search(k, {"steps": steps}, seed=seed), []
        for _ in range(search.steps):
            asked.append(search.ask())
            loss = float(((np.array(asked[-1]) - target) ** 2).sum())
            search.tell(Tried(asked[-1], loss))
        runs.append((asked, search.best))
        search.close()
    assert runs[0] == runs[1]
    asked, best = runs[0]
    assert asked[0] == (0.0,) * k and np.abs(asked).max() <= MAX_WEIGHT
    assert best.weights in asked and len(asked) == min(steps, 50 * k)
    assert steps < 40 or best.loss < 0.5 * float((target**2).sum())


def test_what_is_made_small_is_the_loss_and_the_size_of_the_weights():
    assert objective(Tried((0.5, -1.5), 2.0)) == pytest.approx(2.0 + PENALTY * 1.0)
    search = WeightSearch(2, steps=3, seed=0)
    for loss in (1.0, 0.999, 3.0):
        search.tell(Tried(search.ask(), loss))
    assert search.best == Tried((0.0, 0.0), 1.0), "a thousandth is not worth a weight of 1"
    search.close()


def test_a_search_that_stops_leaves_no_thread():
    before = set(threading.enumerate())
    search = WeightSearch(3, steps=40, seed=0)
    search.ask()
    begun = set(threading.enumerate()) - before
    assert begun, "COBYLA runs in one"
    search.close()
    for thread in begun:
        thread.join(20)
        assert not thread.is_alive()


# --- what it is told ------------------------------------------------------------------------------


def naive_loss(plain, pairs, names, weights) -> float:
    """The equation in float64: every weight of the model changed, every answer token predicted."""
    model, losses = plain.base.model.double(), []
    before = {path: model.get_submodule(path).weight.detach().clone() for path in plain.shapes}
    loras, most = [plain.adapter(*name) for name in names], max(rank for _, rank in names)
    for path, (i, o) in plain.shapes.items():
        A, B = torch.zeros(most, i).double(), torch.zeros(o, most).double()
        for w, (_, rank), lora in zip(weights, names, loras, strict=True):
            A[:rank] += w * lora[path].A.double()
            B[:, :rank] += w * lora[path].B.double()
        model.get_submodule(path).weight.data += B @ A
    for pair in pairs:
        ids = [*pair.ids, pair.targets[-1]]
        for at in range(len(ids) - len(pair.targets), len(ids)):
            logits = model(torch.tensor([ids[:at]])).logits[0, -1].tolist()
            top = max(logits)
            total = sum(math.exp(value - top) for value in logits)
            losses.append(math.log(total) + top - logits[ids[at]])
    for path, weight in before.items():
        model.get_submodule(path).weight.data = weight
    return sum(losses) / len(losses)


def test_the_loss_of_each_step_is_that_of_the_equation(tiny, tiny_llama):
    plain = TinyEngine(tiny_llama)
    plain.engine.close()
    pairs = encode_pairs(hub(), plain.base.tokenizer, context=512)
    ends = [plain.base.tokenizer.decode(pair.targets) for pair in pairs]
    assert ends == [f"{target}<|im_end|>" for _, target in PAIRS]
    fit, seen = tiny.engine.fit(tiny.engine.prepare(hub(), tiny.chosen(NAMES))), set()
    for _ in range(4):
        asked, heard = fit.ask(), []
        assert fit.ask() == asked, "the same until it is told"
        tiny.engine.submit_step(fit, deliver=lambda _, item, heard=heard: heard.append(item))
        tiny.finish()
        (reading,) = heard
        expected = naive_loss(plain, pairs, NAMES, asked.weights)
        assert reading.loss == pytest.approx(expected, abs=2e-5)
        assert len(reading.losses) == sum(len(pair.targets) for pair in pairs)
        fit.tell(reading.loss)
        seen.add(round(expected, 3))
    fit.close()
    assert len(seen) > 2 and held(tiny) == NOTHING


def test_the_search_finds_a_planted_adapter(tiny):
    """The examples are what one adapter alone writes, so its one-hot is as good as there is."""
    planted = []
    for text in ("red", "blue", "loud"):
        request = Request(text, method="selection", max_new_tokens=6, ignore_eos=True)
        state = tiny.submit(request, NAMES[1:2])
        tiny.finish()
        planted.append((text, tiny.heard.pop(state).answer.text))
    request = hub(examples=[pair for pair in planted if pair[1].strip()], steps=20)
    (answer,) = answers(stream(tiny, [request])).values()
    found = answer.fitted
    assert found.adapters == ("ant", "bee", "cat") and found.step == found.steps == 20
    assert found.loss < found.start - 0.05, "the base is at the start"
    sizes = np.abs(found.weights)
    assert sizes.argmax() == 1 and sizes[1] > 2 * max(sizes[0], sizes[2])


# --- in the engine --------------------------------------------------------------------------------


OTHERS = [
    ("ramole", "one two three four", [("bee", 5), ("dog", 4)]),
    ("base", "b", []),
    ("fusion", "a longer prompt with many more words in it than a chunk may hold", NAMES),
    ("mixture", "c d e", [("elk", 1)]),
]


def others(length=14):
    return [
        Request(prompt, method=method, max_new_tokens=length + n, ignore_eos=True)
        for n, (method, prompt, _) in enumerate(OTHERS)
    ]


def submit_others(tiny, **how):
    return [tiny.submit(one, names) for one, (*_, names) in zip(others(**how), OTHERS, strict=True)]


@pytest.fixture(scope="module")
def expected(world):
    """What the others write where nobody else is there."""
    return [world.alone(one, names) for one, (*_, names) in zip(others(), OTHERS, strict=True)]


def test_a_search_changes_nobody_s_tokens_and_is_the_same_beside_others(tiny, expected):
    told = []
    items = list(stream(tiny, [hub()], fitting=lambda index, how: told.append(how)))
    assert [isinstance(item, Step) for _, item in items] == [True] * 5 + [False]
    alone = answers(items)[0]
    assert [how.step for how in told] == list(range(1, STEPS + 1))
    assert told[0].loss == alone.fitted.start and told[-1].weights == alone.fitted.weights
    tiny.engine._reader._fit_cache = FitCache()
    states = submit_others(tiny)
    together = answers(stream(tiny, [hub()]))[0]
    tiny.finish()
    assert [tiny.heard[state].tokens for state in states] == expected
    assert together.fitted.weights == alone.fitted.weights
    assert together.fitted.loss == alone.fitted.loss
    assert together.trace.token_ids == alone.trace.token_ids
    np.testing.assert_array_equal(together.trace.weights, alone.trace.weights)
    shown = together.trace.weights[0, 0, 0]
    np.testing.assert_allclose(shown, alone.fitted.weights, atol=2e-3)
    assert together.trace.shares[:-1].min() >= 0
    given = hub(examples=(), weights=alone.fitted.weights, adapters=["ant", "bee", "cat"])
    assert answers(stream(tiny, [given]))[0].trace.token_ids == alone.trace.token_ids


def test_beside_others_a_search_reads_a_few_tokens_a_step(tiny):
    states = submit_others(tiny)
    scheduler = tiny.engine.scheduler
    while scheduler.batch.reading or not scheduler.batch.rows:
        tiny.engine.step()
    fit = tiny.engine.fit(tiny.engine.prepare(hub(), tiny.chosen(NAMES)))
    state = tiny.engine.submit_step(fit, deliver=lambda *_: None)
    length = sum(len(pair.ids) for pair in fit.reading().pairs)
    before = tiny.engine.stats()
    while all(tiny.heard[other].end is None for other in states):
        tiny.engine.step()
        after = tiny.engine.stats()
        read = after["prefill_tokens"] - before["prefill_tokens"]
        steps = after["decode_forwards"] - before["decode_forwards"]
        assert read <= 4 * steps
    assert 0 < read < length, "it was read, and not all of it"
    state.cancel()
    fit.close()
    tiny.finish()
    assert held(tiny) == NOTHING


@pytest.mark.parametrize("after", [0, 2])
def test_a_search_can_be_stopped_anywhere_and_leaves_nothing(tiny, expected, after):
    told, threads = [], set(threading.enumerate())
    states = submit_others(tiny)
    items = stream(
        tiny,
        [hub(), hub("again")],
        cancelled=lambda: len(told) >= after,
        fitting=lambda index, how: told.append(how),
    )
    found = answers(items)
    assert [found[n].finish_reason for n in (0, 1)] == ["cancelled", "cancelled"]
    assert not any(found[n].new_tokens for n in (0, 1)) and len(told) == after
    tiny.finish()
    assert [tiny.heard[state].tokens for state in states] == expected
    assert held(tiny) == NOTHING and merges_of(tiny) == ["fusion"]
    del items
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
        assert not thread.is_alive()


def test_beside_a_server_s_thread_a_search_is_answered_and_can_be_stopped(tiny, expected):
    thread, told, found, stop = EngineThread(tiny.engine), [], {}, threading.Event()
    thread.start()
    tiny.engine.thread = thread

    def fitting(index, how):
        told.append(how)
        assert len(told) < 10 or stop.wait(60)

    items = stream(tiny, [hub(steps=100)], cancelled=stop.is_set, fitting=fitting)
    searching = threading.Thread(target=lambda: found.update(answers(items)), daemon=True)
    try:
        (whole,) = answers(stream(tiny, [hub(steps=2)])).values()
        searching.start()
        other = answers(stream(tiny, [others()[1]], []))[0]
        stop.set()
        searching.join(60)
    finally:
        stop.set()
        thread.close()
        tiny.engine.thread = None
    assert whole.fitted is not None and whole.new_tokens > 0
    assert other.trace.token_ids[other.trace.prompt_length :] == expected[1]
    assert found[0].finish_reason == "cancelled" and len(told) < 100
    assert held(tiny) == NOTHING


def test_candidates_fill_neither_the_bank_nor_the_cache(tiny):
    made, sizes = tiny.engine.stats()["host_makes"], []

    def look(*_):
        sizes.append((tiny.engine.stats()["host_bytes"], tiny.engine.bank.high))

    answers(stream(tiny, [hub(steps=9)], fitting=look))
    assert tiny.engine.stats()["host_makes"] == made + 10, "nine that were tried, and the last"
    assert len(set(sizes)) == 1, "the adapters themselves, and nothing that was tried"
    assert merges_of(tiny) == ["lorahub"] and held(tiny) == NOTHING
    tokens = tiny.engine.stats()["kv_cached_bytes"] // tiny.engine._kv.page_bytes
    assert tokens <= 2, "the answer's own pages"


def test_equal_examples_are_searched_once(tiny):
    told, requests = [], [hub("one"), hub("two"), hub("three", seed=3)]
    found = answers(stream(tiny, requests, fitting=lambda index, how: told.append(index)))
    assert told == [0] * STEPS + [2] * STEPS, "another seed is another search"
    assert found[0].fitted.weights == found[1].fitted.weights
    assert found[1].fitted.seconds == 0 < found[0].fitted.seconds


@pytest.mark.parametrize("failing", ["ask", "tell", "decide", "long example"])
def test_a_search_that_fails_ends_its_own_request_alone(tiny, monkeypatch, expected, failing):
    reason, requests, ends = (
        "Method lorahub failed.*no weights today",
        [hub(), PLAIN],
        {1: "length"},
    )
    if failing == "long example":
        reason = "Pair 2 of examples has .* reads at most 512; shorten"
        long = hub(examples=[("a", "b"), ("c " * 400, "d")])
        requests, ends = [PLAIN, long, hub()], {0: "length", 2: "length"}
    else:

        def fail(*_):
            raise ValueError("no weights today")

        kind = type(METHODS["lorahub"]) if failing == "decide" else WeightSearch
        monkeypatch.setattr(kind, failing, fail)
    states, found = submit_others(tiny), {}
    with pytest.raises(RamoleError, match=reason):
        for index, item in stream(tiny, requests):
            if isinstance(item, Generation):
                found[index] = item.finish_reason
    assert found == ends
    tiny.finish()
    assert [tiny.heard[state].tokens for state in states] == expected
    assert held(tiny) == NOTHING


def test_earlier_turns_have_the_weights_where_they_have_the_adapters(tiny):
    chat = hub(history=[("one", "two")])

    def prepared(earlier):
        turn = Turn(chat.turns[0], tuple(tiny.chosen(earlier)))
        return tiny.engine.prepare(chat, tiny.chosen(NAMES), earlier=[turn])

    fit = tiny.engine.fit(prepared(NAMES))
    for _ in range(STEPS):
        fit.tell(sum(fit.ask().weights))
    weights = {turn.request.weights for turn in fit.fitted.turns}
    assert len(weights) == 1 and None not in weights
    fit.close()
    with pytest.raises(RamoleError, match="Turn 1 of history has dog, but weights are found for"):
        prepared([("dog", 4)])
    assert prepared([]).turns[0].candidates == ()


def test_an_example_without_room_waits_and_ends_nobody(tiny_llama):
    """Two equal searches share pages; what one gives back the other still holds, and a third
    request has taken the rest."""
    page = TinyEngine(tiny_llama).engine._kv.page_bytes
    sizes = EngineSizes(max_batch=6, prefill_chunk=32, kv_cache_bytes=page * 14)
    tiny = TinyEngine(tiny_llama, sizes)
    pairs, told = [("a" * 400, "b"), ("short", "c" * 380)], []
    for n in range(2):
        tiny.engine._reader._fit_cache = FitCache()
        fit = tiny.engine.fit(tiny.engine.prepare(hub(examples=pairs), tiny.chosen(NAMES)))
        who = {"session": f"s{n}", "address": f"10.0.0.{n}"}
        tiny.engine.submit_step(fit, **who, deliver=lambda state, item: told.append(item))
    other = Request("x" * 90, method="base", max_new_tokens=40, ignore_eos=True)
    third = tiny.submit(other, [], session="o", address="10.0.0.9")
    tiny.finish()
    assert len(told) == 2 and not any(isinstance(one, Exception) for one in told)
    assert isinstance(tiny.heard[third].end, Generation) and held(tiny) == NOTHING
    tiny.engine.close()


def test_second_readings_take_nothing_of_what_an_example_may_read(tiny_llama):
    steps = []
    for effects in (False, True):
        tiny = TinyEngine(tiny_llama, EngineSizes(max_batch=16))
        engine, asked, heard = tiny.engine, [], []
        row = {"ignore_eos": True, "trace": False}
        tiny.submit(Request("go", method="base", max_new_tokens=150, **row), [], session="l")
        for n in range(3):
            one = Request(f"Count {n}", method="mixture", max_new_tokens=10, effects=effects, **row)
            asked.append(engine.prepare(one, tiny.chosen(NAMES)))
        fit = engine.fit(engine.prepare(hub(examples=[("a" * 80, "b")]), tiny.chosen(NAMES)))
        how = {"session": "", "cancelled": partial(bool, heard), "waiting": lambda *_: None}
        for n, _ in enumerate(RequestStream(engine, asked, **how), 1):
            if n == 25:
                start = engine.stats()["decode_forwards"]
                engine.submit_step(fit, session="f", deliver=partial(_count, engine, heard))
        while not heard:
            engine.step()
        assert effects == (engine.stats()["effect_tokens"] > 0)
        steps.append(heard[0] - start)
        engine.close()
    assert 0 < steps[1] <= steps[0] + 10


def _count(engine, into, *_):
    into.append(engine.stats()["decode_forwards"])
