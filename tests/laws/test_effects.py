"""Effects: Shapley values by their definition, readings equal to the naive run, also in a batch."""

import os
import random
from collections.abc import Generator
from dataclasses import fields, replace
from itertools import count, permutations

import numpy as np
import pytest
import torch

from ramole_core import Generation, RamoleError, Request
from ramole_core.composition import METHODS
from ramole_core.effects import effects_of, rule_of, subsets_of
from ramole_core.engine import prefill
from ramole_core.engine.request_stream import RequestStream
from ramole_core.engine.segments import SegmentMaker
from ramole_core.kernels.logprob import token_logprobs
from tests.laws.test_segments import RANKS, World, with_starts
from tests.support.naive_segments import NaiveTurn
from tests.support.schedules import WORDS

BATCHED = [name for name in METHODS if not METHODS[name].brings]
MIXING = [name for name in BATCHED if name != "base"]
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


def agrees(world, request: Request, names=NAMES, earlier=()) -> None:
    """The answer's effects equal the naive ones, and are of five tokens."""
    answer = ask(world, request, names, earlier)
    effects, logprob, base = naive_effects(world, request, answer, names, earlier)
    assert answer.effects is not None and answer.logprob is not None
    assert answer.base_logprob is not None and answer.effects.shape == effects.shape
    assert len(effects) == 5
    assert np.abs(effects).max() > 5 * ROUNDING
    np.testing.assert_allclose(answer.logprob, logprob, atol=ROUNDING)
    np.testing.assert_allclose(answer.base_logprob, base, atol=ROUNDING)
    np.testing.assert_allclose(answer.effects, effects, atol=ROUNDING)
    gap = answer.logprob - answer.base_logprob - answer.effects.sum(-1)
    assert np.abs(gap).max() < 1e-4, "they do not add up"


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
    agrees(world, Request("Count to ten", **{**GIVEN, "method": "ramole", **OTHERS[name]}))


def test_earlier_turns_keep_their_adapters_but_for_the_base(world):
    talk = [("One", "two", None), ("Three", "four", None)]
    request = Request("Count to ten", method="mixture", history=talk, **GIVEN)
    agrees(world, request, NAMES[:2], [("dog",), ("elk", "cat")])


def test_the_base_alone_has_nobody(world):
    answer = ask(world, Request("Count to ten", method="base", **GIVEN), ())
    assert answer.effects is not None and answer.effects.shape == (5, 0)
    assert answer.logprob is not None
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


def test_effects_are_the_same_given_or_made_traced_or_not(world):
    request = Request("Count", method=MIXING[0], **GIVEN)
    made = ask(world, request)
    assert made.trace is not None
    given = made.trace.token_ids[made.trace.prompt_length :]
    again = ask(world, replace(request, prefix_ids=given[:-1], trace=False))
    for name in ("effects", "logprob", "base_logprob"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))


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


def test_readings_come_after_every_prompt_and_little_by_little_beside_rows(world, monkeypatch):
    monkeypatch.setattr(prefill, "REREAD_TOKENS", 8)
    scheduler, steps = world.engine.scheduler, []
    step, names = scheduler.step, ("effect_tokens", "prefill_tokens", "decode_tokens")

    def watched():
        before = scheduler.stats()
        events = step()
        steps.append({name: scheduler.stats()[name] - before[name] for name in names})
        return events

    monkeypatch.setattr(scheduler, "step", watched)
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
        elif len(steps) == 12 and late:
            world.engine.submit(late.pop())
    assert sorted(ended) == [0, 1]
    both = [step for step in steps if step["effect_tokens"] and step["prefill_tokens"]]
    assert not both, "an answer was read again in a step that reads a prompt"
    beside = [step["effect_tokens"] for step in steps if step["decode_tokens"]]
    assert 0 < max(beside) <= 8
    for n in range(1, len(beside) + 1):
        assert sum(beside[:n]) <= n, "more than a token a step"
    assert sum(step["effect_tokens"] for step in steps) > 6 * 5


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


# --- any requests in one batch --------------------------------------------------------------------

BEGINNINGS = ("", "Count to ", f"{' '.join(WORDS)} ")
SEEDS = (2, 6, 9, 11)
MAYBE = {
    "effects": (True, 0.5),
    "trace": (True, 0.5),
    "temperature": (0.8, 0.3),
    "repetition_penalty": (1.2, 0.15),
    "stop": (["six"], 0.15),
    "raw": (True, 0.1),
}
"""A field's value, and how often a request has it."""
TAKES_TIME = {"seconds", "first_token_seconds", "extra", "trace"}
"""What need not be the same."""


def drawn(chance: random.Random) -> tuple[Request, tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """A request, the adapters of its turn, and those of the turn before."""
    words = [chance.choice(WORDS) for _ in range(chance.choice([1, 2, 5, 12, 40, 90]))]
    options: dict = {"max_new_tokens": chance.choice([1, 2, 5, 9, 20]), "ignore_eos": True}
    options |= {"trace": False, "seed": 3}
    options |= {name: value for name, (value, share) in MAYBE.items() if chance.random() < share}
    if chance.random() < 0.25:
        options |= {"logprobs": 2, "prompt_logprobs": chance.random() < 0.6}
    earlier = ()
    if chance.random() < 0.2 and not options.get("raw"):
        options["history"] = [["Count", "one two"]]
        earlier = (tuple(chance.sample(list(RANKS), chance.choice([0, 2]))),)
    method = chance.choice(BATCHED)
    names = tuple(chance.sample(list(RANKS), chance.choice([1, 2, 3, 5])))
    prompt = chance.choice(BEGINNINGS) + " ".join(words)
    taken = METHODS[method].experts(len(names))
    return Request(prompt, method=method, **options), names[:taken], earlier


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_asked_together_is_answered_as_alone(world, seed):
    chance = random.Random(seed)
    asked = [drawn(chance) for _ in range(chance.choice([4, 8, 12]))]
    together = stream(world, [world.prepare(*one) for one in asked])
    world.engine.forget_prefixes()
    for one, ours in zip(asked, together, strict=True):
        (alone,) = stream(world, [world.prepare(*one)])
        for field in fields(Generation):
            mine, its = getattr(ours, field.name), getattr(alone, field.name)
            if field.name not in TAKES_TIME:
                np.testing.assert_equal(mine, its, f"{field.name} of {one[0]}")
        assert (ours.trace is None) == (alone.trace is None)
        if ours.trace is not None and alone.trace is not None:
            np.testing.assert_array_equal(ours.trace.weights, alone.trace.weights)
