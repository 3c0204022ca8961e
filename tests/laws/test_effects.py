"""Effects: Shapley values by their definition, readings equal to the naive run, and who waits."""

import os
from collections.abc import Generator
from dataclasses import replace
from itertools import count, permutations

import numpy as np
import pytest
import torch

from ramole_core.composition import METHODS
from ramole_core.effects import effects_of, rule_of, subsets_of
from ramole_core.engine import prefill
from ramole_core.engine.request_stream import RequestStream
from ramole_core.engine.segments import SegmentMaker
from ramole_core.errors import RamoleError
from ramole_core.kernels.logprob import token_logprobs
from ramole_core.request import Generation, Request
from tests.laws.test_segments import World, with_starts
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.naive_segments import NaiveTurn

MIXING = [name for name in METHODS if name != "base" and not METHODS[name].brings]
HERE = ("mixture", "ramole", "ramole_plus", "selection", "ties", "mole")
"""Fixed weights, gates, one adapter, a merge, a score of its own; all of MIXING are read where
RAMOLE_SCHEDULES is set."""
NAMES = ("ant", "bee", "cat")
GIVEN = {"max_new_tokens": 5, "ignore_eos": True, "effects": True}
ROUNDING = 0.02
"""Nats: float32 here and there, under adapters as loud as these."""


# --- the value of a game --------------------------------------------------------------------------


def by_definition(v, k: int) -> np.ndarray:
    """The mean over all orders in which the players may come of what each adds, float64."""
    found = np.zeros((len(v[frozenset()]), k))
    orders = list(permutations(range(k)))
    for order in orders:
        for n, player in enumerate(order):
            found[:, player] += v[frozenset(order[: n + 1])] - v[frozenset(order[:n])]
    return found / len(orders)


def game(k: int, seed: int = 0):
    """v of every subset that is needed, for 7 tokens."""
    numbers = np.random.default_rng(seed)
    every = (frozenset(), *subsets_of(k), frozenset(range(k)))
    return {subset: numbers.normal(size=7) * 3 for subset in every}


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_an_effect_is_the_shapley_value_and_they_add_up(k):
    v = game(k)
    found = effects_of(v, k)
    assert len(v) == 2**k and found.dtype == np.float32 and rule_of(k) == "shapley"
    np.testing.assert_allclose(found, by_definition(v, k), atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), v[frozenset(range(k))] - v[frozenset()], atol=1e-5)


def test_who_changes_nothing_has_no_effect_and_who_does_the_same_has_the_same():
    v = game(3)
    v = {s: v[s - {2}] for s in v}  # 2 changes nothing
    assert not effects_of(v, 3)[:, 2].any()
    v |= {frozenset({1}): v[frozenset({0})], frozenset({1, 2}): v[frozenset({0, 2})]}
    found = effects_of(v, 3)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


def test_of_more_than_four_each_is_left_out_once():
    v = game(5)
    assert len(subsets_of(5)) == 5 and rule_of(5) == "leave_one_out"
    everybody = frozenset(range(5))
    expected = [v[everybody] - v[everybody - {i}] for i in range(5)]
    np.testing.assert_allclose(effects_of(v, 5), np.stack(expected, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_log_probability_is_float64s_and_no_other_row_changes_its_bits(dtype):
    rows = (torch.randn(5, 1003, generator=torch.Generator().manual_seed(2)) * 9).to(dtype)
    rows[1] = -1000 + rows[1]
    rows[2, 7] = -torch.inf
    tokens = [3, 1002, 8, 64, 0]
    found = token_logprobs(rows, tokens)
    expected = rows.double().log_softmax(-1)[range(5), tokens]
    torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=1e-5, atol=2e-5)
    assert [token_logprobs(rows[n : n + 1], [t])[0] for n, t in enumerate(tokens)] == found
    assert token_logprobs(rows[:0], []) == []


# --- against the naive run ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tiny_llama):
    made = World(tiny_llama, "float32")
    yield made
    made.engine.close()


def told(answer: Generation) -> np.ndarray:
    """Its effects."""
    assert answer.effects is not None
    return answer.effects


def ask(world, request: Request, names=NAMES, earlier=()) -> Generation:
    """The answer through a caller's stream."""
    (answer,) = stream(world, [world.prepare(request, names, earlier)])
    return answer


def reader(world, asked, *, cancelled=lambda: False) -> RequestStream:
    return RequestStream(
        world.engine, asked, session="", cancelled=cancelled, waiting=lambda *_: None
    )


def stream(world, asked, *, cancelled=lambda: False) -> list[Generation]:
    found = {}
    for index, item in reader(world, asked, cancelled=cancelled):
        if isinstance(item, Generation):
            found[index] = item
    assert world.engine.scheduler.idle and not world.engine._kv.held_bytes
    return [found[n] for n in range(len(asked))]


def naive_effects(world, request: Request, answer: Generation, names, earlier) -> tuple:
    """Effects, log probabilities and the base's by whole forwards in plain torch, float64 sums."""
    trace, k = answer.trace, len(answer.adapters)
    assert trace is not None
    ids, P = trace.token_ids, trace.prompt_length
    given, method = P + len(request.prefix_ids), METHODS[request.method]
    every = world.candidates(names)[: method.experts(len(names))]
    turn, without = request.turns[-1], with_starts(request, given)
    before = world.turns(request, names, earlier)[:-1]

    def v(subset) -> np.ndarray:
        own = tuple(every[n] for n in sorted(subset))
        asked = turn
        if turn.weights is not None and own:
            asked = replace(
                turn,
                adapters=[one.name for one in own],
                weights=[turn.weights[n] for n in sorted(subset)],
            )
        turns = [*before, NaiveTurn(asked, own, 10**6)]
        if not subset:
            turns = [NaiveTurn(turn.by_base(), (), 10**6)]
        logits, _ = world.naive.read(ids, turns, without=without if subset else ())
        chosen = logits[P - 1 : -1].double().log_softmax(-1)
        return chosen[range(len(ids) - P), ids[P:]].numpy()

    everybody = frozenset(range(k))
    values = {s: v(s) for s in (frozenset(), *subsets_of(k), everybody)}
    return by_definition(values, k), values[everybody], values[frozenset()]


def agrees(world, request: Request, names=NAMES, earlier=()) -> Generation:
    """The answer, whose effects equal the naive ones."""
    answer = ask(world, request, names, earlier)
    effects, logprob, base = naive_effects(world, request, answer, names, earlier)
    assert answer.effects is not None and answer.logprob is not None
    assert answer.base_logprob is not None and answer.effects.shape == effects.shape
    assert np.abs(effects).max() > 5 * ROUNDING
    np.testing.assert_allclose(answer.logprob, logprob, atol=ROUNDING)
    np.testing.assert_allclose(answer.base_logprob, base, atol=ROUNDING)
    np.testing.assert_allclose(answer.effects, effects, atol=ROUNDING)
    gap = answer.logprob - answer.base_logprob - answer.effects.sum(-1)
    assert np.abs(gap).max() < 1e-4, "they do not add up"
    return answer


@pytest.mark.parametrize("method", MIXING if "RAMOLE_SCHEDULES" in os.environ else HERE)
def test_effects_are_those_of_the_naive_run(world, method):
    agrees(world, Request("Count to ten", method=method, **GIVEN))


OTHERS = {
    "weights": {"adapters": NAMES, "weights": (0.5, 0.2, 0.9), "method": "mixture"},
    "sampled": {"temperature": 0.8, "top_p": 0.7, "seed": 3, "method": "mixture"},
    "switched off": {"without": [("bee", 1, None, 0), ("cat", None, None)]},
    "untraced gate": {"prefix_ids": (5, 9, 30), "method": "ramole"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_they_are_also_where_more_is_said(world, name):
    answer = agrees(world, Request("Count to ten", **{**GIVEN, "method": "ramole", **OTHERS[name]}))
    assert len(told(answer)) == 5


def test_earlier_turns_keep_their_adapters_but_for_the_base(world):
    talk = [("One", "two", None), ("Three", "four", None)]
    request = Request("Count to ten", method="mixture", history=talk, **GIVEN)
    agrees(world, request, NAMES[:2], [("dog",), ("elk", "cat")])


def test_the_base_alone_has_nobody(world):
    answer = ask(world, Request("Count to ten", method="base", **GIVEN), ())
    assert told(answer).shape == (5, 0) and answer.logprob is not None
    np.testing.assert_array_equal(answer.logprob, answer.base_logprob)


def test_effects_come_though_somebody_always_waits(tiny_llama):
    world = World(tiny_llama, "float32")
    scheduler, looks = world.engine.scheduler, count()
    scheduler.sizes = replace(scheduler.sizes, max_batch=1)

    def feed() -> bool:
        while scheduler.waiting < 2:
            world.engine.submit(world.prepare(Request("x", method="base", max_new_tokens=2)))
        return next(looks) > 600

    asked = [world.prepare(Request("First", method="mixture", **GIVEN), NAMES)]
    *_, (_, answer) = reader(world, asked, cancelled=feed)
    assert isinstance(answer, Generation) and answer.effects is not None
    world.engine.close()


# --- whoever is there -----------------------------------------------------------------------------


def test_the_bits_are_the_same_in_any_batch_given_or_made_traced_or_not(world):
    requests = [Request(f"Count {n}", method=m, **GIVEN) for n, m in enumerate(MIXING[:4])]
    alone = [ask(world, request) for request in requests]
    world.engine.forget_prefixes()
    others = [Request("Others", max_new_tokens=9, ignore_eos=True, effects=False)] * 3
    asked = [world.prepare(request, NAMES) for request in (*requests, *others)]
    for one, other in zip(alone, stream(world, asked), strict=False):
        for name in ("effects", "logprob", "base_logprob"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    trace = alone[0].trace
    assert trace is not None
    given = trace.token_ids[trace.prompt_length :]
    again = ask(world, replace(requests[0], prefix_ids=given[:-1], trace=False))
    np.testing.assert_array_equal(again.effects, alone[0].effects)


def test_answers_of_any_length_are_read_again_together(world):
    """A reading is told apart by its prompt alone, which ends before what it reads."""
    requests = [Request("Count " + "on and " * n, method="mixture", **GIVEN) for n in (0, 1, 3, 9)]
    alone = [ask(world, request) for request in requests]
    world.engine.forget_prefixes()
    for step in (1, -1):
        asked = [world.prepare(request, NAMES) for request in requests[::step]]
        together = stream(world, asked)[::step]
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.effects, other.effects)


def test_what_is_read_is_the_answer_alone_and_nothing_where_nobody_asks(world):
    world.engine.forget_prefixes()
    before = world.engine.stats()["effect_tokens"]
    request = Request("Count to ten and then once more", method="mixture", **GIVEN)
    base = replace(request.by_base(), effects=False)
    stream(world, [world.prepare(request, NAMES), world.prepare(base, ())])
    read = world.engine.stats()["effect_tokens"] - before
    prompt = len(world.prepare(request, NAMES).prompt.ids)
    assert read == 6 * (prompt + 4) + 5, "the prompt is in the cache of the base alone"
    answer = ask(world, replace(request, effects=False))
    assert world.engine.stats()["effect_tokens"] == before + read
    assert (answer.effects, answer.logprob, answer.base_logprob) == (None, None, None)


class Watched:
    """Which tokens each step of the engine read."""

    def __init__(self, world, patch):
        self.steps, self._engine = [], world.engine
        step, scheduler = world.engine.scheduler.step, world.engine.scheduler

        def watched():
            before = scheduler.stats()
            events = step()
            after = scheduler.stats()
            names = ("effect_tokens", "prefill_tokens", "decode_tokens", "waiting")
            self.steps.append({name: after[name] - before[name] for name in names[:3]})
            self.steps[-1] |= {"waiting": before["waiting"]}
            return events

        patch.setattr(scheduler, "step", watched)


def test_readings_come_after_every_prompt_and_little_by_little_beside_rows(world, monkeypatch):
    monkeypatch.setattr(prefill, "REREAD_TOKENS", 8)
    seen = Watched(world, monkeypatch)
    long, short = ({"max_new_tokens": n, "ignore_eos": True} for n in (60, 2))
    asked = [
        world.prepare(Request("First", method="mixture", **GIVEN), NAMES),
        world.prepare(Request("Others", method="mixture", **long), NAMES),
    ]
    late = [world.prepare(Request("Later", method="base", **short), ())]
    ended = []
    for index, item in reader(world, asked):
        if isinstance(item, Generation):
            ended.append(index)
        elif len(seen.steps) == 12 and late:
            world.engine.submit(late.pop())
    assert sorted(ended) == [0, 1]
    both = [step for step in seen.steps if step["effect_tokens"] and step["prefill_tokens"]]
    assert not both, "an answer was read again in a step that reads a prompt"
    beside = [step["effect_tokens"] for step in seen.steps if step["decode_tokens"]]
    assert 0 < max(beside) <= 8
    for n in range(1, len(beside) + 1):
        assert sum(beside[:n]) <= n, "more than a token a step"
    assert sum(step["effect_tokens"] for step in seen.steps) > 6 * 5


def test_a_reader_who_goes_takes_the_readings_along(world):
    request = Request("Count to ten", method="mixture", **GIVEN)
    scheduler = world.engine.scheduler
    (answer,) = stream(
        world, [world.prepare(request, NAMES)], cancelled=lambda: bool(scheduler.batch.again)
    )
    assert answer.effects is None and answer.finish_reason == "length" and not answer.notes
    leaving = iter(reader(world, [world.prepare(request, NAMES)]))
    for _ in range(5):
        next(leaving)
    assert isinstance(leaving, Generator)
    leaving.close()
    assert scheduler.idle and not world.engine._kv.held_bytes


def test_an_answer_whose_readings_fail_says_so(world, monkeypatch):
    def refuses(*_args, **_how):
        raise RamoleError("It cannot do without ant.")

    monkeypatch.setattr(SegmentMaker, "with_subset", refuses)
    answer = ask(world, Request("Count to ten", method="mixture", **GIVEN))
    assert answer.effects is None and answer.text and "without ant" in answer.notes[-1]
