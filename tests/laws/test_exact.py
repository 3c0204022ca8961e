"""Whatever happens around a request, its logits are to the bit those it gets alone, as served."""

import pytest
from hypothesis import given, strategies as st

from ramole_core.composition import METHODS
from ramole_core.engine.engine import EngineSizes
from tests.support.schedules import Job, Pair, ask, events_of, examples
from tests.support.tiny_engine import TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1, "elk": 3, "fox": 5}
PAGES = 18
"""Of the narrow engine's bank: the six adapters have 22."""
KINDS = ("float32", "bfloat16", "nf4")
CHAT = (("one two three", "four five"), ("six seven", "eight nine ten a b c"))
JOBS = [
    Job(ask(1, "base")),
    Job(ask(3, "selection"), ("ant",)),
    Job(ask(40, "selection", max_new_tokens=9), ("bee",)),
    Job(ask(2), ("ant", "cat", "dog")),
    Job(ask(25, trace=True), ("bee", "dog")),
    Job(ask(7, temperature=1.0, seed=4), ("elk", "fox")),
    Job(ask(5, "mixture", max_new_tokens=12), ("fox", "ant", "elk")),
    Job(ask(11, "uniform_router", trace=True), ("dog", "fox")),
    Job(ask(30, "random_router", temperature=0.7, top_p=0.8, seed=9), ("bee", "ant")),
    Job(ask(4, "mixture", adapters=("cat", "bee"), weights=(0.2, 1.5)), ("cat", "bee")),
    Job(ask(60, "base", max_new_tokens=2)),
    # several segments
    Job(ask(4, history=CHAT[:1], trace=True), ("bee", "cat"), (("ant", "dog"),)),
    Job(ask(4, history=CHAT, max_new_tokens=9), ("fox",), (("ant", "dog"), ())),
    Job(ask(9, history=CHAT, trace=True), ("ant", "dog"), (("ant", "dog"), ("bee", "elk"))),
    Job(ask(25, trace=True, without=[("bee", 1, None), (None, None, "up_proj")]), ("bee", "dog")),
    Job(ask(25, without=[("dog", None, None, 12), (None, 0, None, 33)]), ("bee", "dog")),
    Job(ask(25, trace=True, later_weights={"dog": 1.4, "bee": 0.2}), ("bee", "dog")),
    Job(ask(40, "fusion", without=[("elk", None, "q_proj", 3)]), ("cat", "elk")),
]
JOBS += [
    Job(ask(8 + n, method, trace=True), ("cat", "dog", "ant"))
    for n, method in enumerate(sorted(set(METHODS) - {job.request.method for job in JOBS}))
]
"""Every method of the registry is among them."""
JOBS += [Job(ask(17, "spectr", options={"spectrum": False}, trace=True), ("cat", "dog", "ant"))]
MERGING = {name for name, method in METHODS.items() if method.merges}
EVENTS = events_of(JOBS, names=len(RANKS), chunks=[1, 3, 16, 300])


def make_pair(folder, kind: str, units) -> Pair:
    """Whatever can be moved, evicted or split is: few rows, small chunks, little memory."""
    roomy = TinyEngine(folder, kind=kind)
    page, token = roomy.engine.bank.page_bytes, roomy.engine._kv.token_bytes
    narrow = TinyEngine(
        folder,
        EngineSizes(
            max_batch=4,
            max_queue=10_000,
            prefill_chunk=16,
            kv_cache_bytes=14 * 64 * token,
            device_cache_bytes=PAGES * page,
            host_cache_bytes=12 * page,
            units_dir=units,
        ),
        kind=kind,
    )
    return Pair(JOBS, roomy, narrow, RANKS)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    folder = request.getfixturevalue("tiny_nf4" if request.param == "nf4" else "tiny_llama")
    return make_pair(folder, request.param, tmp_path_factory.mktemp("units"))


@examples(334)
@given(st.lists(EVENTS, min_size=3, max_size=10))
def test_no_bit_differs_in_any_schedule(pair, events):
    assert pair.play(events) == 0
    stats = pair.narrow.engine.stats()
    assert stats["kv_bytes"] == 0
    assert not any(slot.pins for slot in pair.narrow.engine.bank.slots)
    assert pair.narrow.engine.bank.tensors.B[0][0].shape[1] <= PAGES


def test_the_schedules_meet_evictions_waiting_chunks_and_what_is_found(pair):
    """Or the property above would be an easy one: its engine is as narrow as it claims."""
    before = pair.narrow.engine.stats()
    # of the merges one, or those that wait fill the memory, and are refused
    few = [n for n, job in enumerate(JOBS) if job.request.method not in MERGING - {"fusion"}]
    everyone = [("ask", job, 0) for job in few]
    assert pair.play([*everyone, ("step", 3, 0), *everyone[:9]]) == 0
    after = pair.narrow.engine.stats()
    done = {name: after[name] - before[name] for name in before}
    assert done["bank_evictions"] > 10 and done["host_reads"] > 5
    assert done["shared_tokens"] > 100
    assert done["prefill_forwards"] > 1.3 * done["admitted"]
