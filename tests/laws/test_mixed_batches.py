"""Requests of any kind in one batch are answered as each of them alone, to the bit."""

import random
from dataclasses import fields

import numpy as np
import pytest

from ramole_core.composition import METHODS
from ramole_core.request import Generation, Request
from tests.laws.test_effects import stream
from tests.laws.test_segments import RANKS, World
from tests.support.schedules import WORDS

METHOD_NAMES = [name for name in METHODS if not METHODS[name].brings]
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


@pytest.fixture(scope="module")
def world(tiny_llama):
    made = World(tiny_llama, "float32")
    yield made
    made.engine.close()


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
    method = chance.choice(METHOD_NAMES)
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
