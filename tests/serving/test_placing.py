"""Which engine a request goes to."""

import asyncio
import math
from collections import Counter
from types import SimpleNamespace

from hypothesis import given, settings, strategies as st

from ramole_core.serving.placing import Placing

ENGINES = [f"engine-{n}" for n in range(5)]


def place(placing, adapter, engines=ENGINES):
    found = placing.begin(adapter, engines)
    placing.end(found)
    return found


def test_an_adapter_stays_at_its_engine_and_many_are_spread():
    placing = Placing()
    found = {f"a{n}": place(placing, f"a{n}") for n in range(500)}
    assert found == {name: place(placing, name) for name in found}
    counts = Counter(found.values())
    assert set(counts) == set(ENGINES) and max(counts.values()) < 150


def test_an_engine_that_goes_moves_its_own_adapters_alone():
    placing = Placing()
    before = {f"a{n}": place(placing, f"a{n}") for n in range(200)}
    after = {name: place(placing, name, ENGINES[1:]) for name in before}
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {name for name, engine in before.items() if engine == ENGINES[0]} and moved


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
@settings(deadline=None)
def test_no_engine_has_more_than_the_bound(steps):
    placing, open_ = Placing(), []
    for adapter, ends in steps:
        if ends and open_:
            placing.end(open_.pop(0))
            continue
        open_.append(placing.begin(f"a{adapter}", ENGINES))
        most = math.ceil(1.25 * len(open_) / len(ENGINES))
        assert Counter(open_)[open_[-1]] <= most


def test_without_an_adapter_and_by_load_the_idlest_takes_it():
    for how, adapter in (("adapter", None), ("load", "a")):
        placing = Placing(how)
        found = [placing.begin(adapter, ENGINES) for _ in range(10)]
        assert Counter(found) == dict.fromkeys(ENGINES, 2)
        placing.end(ENGINES[3])
        assert placing.begin(adapter, ENGINES) == ENGINES[3]


def test_ray_s_router_sends_to_the_one_that_is_named_or_to_any():
    from ramole_core.serving.ray_router import NamedRouter

    there = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in "abc"]

    def chosen(*args):
        asked = SimpleNamespace(args=list(args))
        return asyncio.run(NamedRouter.choose_replicas(None, there, asked))

    assert chosen("b", "job") == [[there[1]]]
    assert chosen("gone", "job") == chosen("", "job") == [there]
    assert asyncio.run(NamedRouter.choose_replicas(None, there, None)) == [there]
    assert asyncio.run(NamedRouter.choose_replicas(None, [], None)) == []
