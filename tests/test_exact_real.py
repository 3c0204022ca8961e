"""The real base as it is served, in NF4: the same bits in any schedule, and what reading once saves."""

import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from ramole_core.engine.engine import EngineSizes
from ramole_core.request import Request
from tests.naive_segments import NaiveModel, NaiveTurn
from tests.real_engine import RealEngine, apart
from tests.schedules import Bits, Job, Pair, events_of, examples

NAMES = dict.fromkeys(("banking77", "squad_v1", "spider_sql", "true_case", "nl2bash"), 0)
STORY = (
    "The harbour of Halvik has been closed since Monday, because a storm has broken the outer wall. "
    "Ferries to the islands wait in the next bay, and fish is sold from lorries on the road. "
)


def ask(prompt: str, method: str = "ramole", **options) -> Request:
    options = {"max_new_tokens": 4, "ignore_eos": True, "trace": False} | options
    return Request(prompt, method=method, **options)


TURN = (("List all files that are larger than a megabyte.", "find . -size +1M"),)
JOBS = [
    Job(ask("Why?", "base", raw=True, max_new_tokens=6)),
    Job(ask("My card was swallowed.", "selection", max_new_tokens=6), ("banking77",)),
    Job(ask("put capitals: anna flew to oslo", "mixture", raw=True), ("true_case", "squad_v1")),
    Job(ask("How many singers are there?", trace=True), ("spider_sql", "nl2bash", "squad_v1")),
    Job(ask(STORY + "Why is it closed?", "ramole_plus", raw=True), ("squad_v1", "banking77")),
    Job(ask(STORY * 7, "ramole", raw=True, max_new_tokens=2), ("squad_v1", "true_case")),
    Job(ask("count lines", "arrow", raw=True, trace=True), ("nl2bash", "spider_sql", "true_case")),
    Job(ask(STORY + "Who waits?", "base", raw=True, temperature=0.8, seed=3)),
    Job(ask("And in bytes?", history=TURN, trace=True), ("spider_sql",), (("nl2bash",),)),
    Job(ask("And in bytes?", "arrow", history=TURN), ("nl2bash", "squad_v1"), (("nl2bash",),)),
    Job(
        ask("How many?", raw=True, without=[("nl2bash", 3, None, 1), (None, None, "up_proj", 2)]),
        ("nl2bash", "spider_sql"),
    ),
    Job(ask("Why?", "selection", raw=True, without=[(None, 7, None)]), ("squad_v1",)),
]
EVENTS = events_of(JOBS, names=0, chunks=[7, 64, 256])


@pytest.fixture(scope="module")
def real(real_base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    sizes = EngineSizes(
        max_batch=4, max_queue=1000, prefill_chunk=64, kv_cache_bytes=2**26, units_dir=folder
    )
    return RealEngine(real_base_folder, folder, sizes)


@pytest.fixture(scope="module")
def pair(real):
    """One engine: everybody has run alone before all meet."""
    found = Pair(JOBS, real, real, NAMES)
    for job in range(len(JOBS)):
        found.alone(job, NAMES)
    return found


@examples(50)
@given(st.lists(EVENTS, min_size=3, max_size=7))
def test_no_bit_differs_in_any_schedule_of_the_real_base(pair, events):
    assert pair.play(events) == 0
    assert pair.narrow.engine.stats()["kv_bytes"] == 0


def test_the_prompts_are_of_3_to_300_tokens(real):
    counts = [len(real.engine.read(job.request).ids) for job in JOBS]
    assert min(counts) <= 3 and 250 < max(counts) <= 300


def test_the_base_says_the_same_alone_beside_itself_and_beside_others(real):
    """At temperature 0; method base, and the same tokens bare beside mixtures."""
    prompts = [
        "What is the capital of Portugal?",
        "Say good night in Italian.",
        "List three things for a week by the sea.",
        "Is copper a metal?",
        "Write a line about an old clock.",
        "What is 12 plus 30?",
    ]
    requests = [ask(prompt, "base", max_new_tokens=8) for prompt in prompts]
    alone = []
    for request in requests:
        real.engine.forget_prefixes()
        alone.append(real.alone(request, ()))
    real.engine.forget_prefixes()
    states = []
    for request in requests:
        states.append(real.submit(request, ()))
        beside = replace(request, method="mixture")
        real.submit(beside, [("squad_v1", 0), ("banking77", 0)])
        prepared = real.engine.prepare(beside, real.chosen([("squad_v1", 0)]))
        states.append(real.submit(prepared.bare().request, ()))
    real.finish()
    heard = [real.heard.pop(state).tokens for state in states]
    real.heard.clear()
    assert heard[::2] == alone and heard[1::2] == alone
