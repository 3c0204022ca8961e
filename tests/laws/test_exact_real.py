"""The real base as served, in NF4: the same bits in any schedule, and prompts read once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from ramole_core.engine.engine import EngineSizes
from ramole_core.request import Request
from tests.support.naive_segments import NaiveModel, NaiveTurn
from tests.support.real_engine import RealEngine, apart
from tests.support.schedules import Bits, Job, Pair, events_of, examples

NAMES = dict.fromkeys(("banking77", "squad_v1", "spider_sql", "true_case", "nl2bash"), 0)
STORY = (
    "The harbour of Halvik has been closed since Monday, because a storm broke the outer wall. "
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
    """One engine for those alone and for all who meet."""
    return Pair(JOBS, real, real, NAMES)


@examples(50)
@given(st.lists(EVENTS, min_size=3, max_size=7))
def test_no_bit_differs_in_any_schedule_of_the_real_base(pair, events):
    for what, job, _ in events:
        if what == "ask":
            pair.alone(job, NAMES)  # before the others come
    assert pair.play(events) == 0
    assert pair.narrow.engine.stats()["kv_bytes"] == 0


def test_the_prompts_are_of_3_to_300_tokens(real):
    counts = [len(real.engine.read(job.request).ids) for job in JOBS]
    assert min(counts) <= 3 and 250 < max(counts) <= 310


def test_the_base_says_the_same_alone_beside_itself_and_beside_others(real):
    """At temperature 0; method base, and the same tokens bare beside mixtures."""
    prompts = [
        "What is the capital of Portugal?",
        "Say good night in Italian.",
        "List three things for a week by the sea.",
        "What is 12 plus 30?",
    ]
    requests = [ask(prompt, "base", max_new_tokens=6) for prompt in prompts]
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


def logits_of(real, job: Job) -> tuple[list[int], list[int], torch.Tensor]:
    """Prompt, answer and logits of a job that runs now."""
    bits = Bits()
    with pytest.MonkeyPatch.context() as patch:
        bits.watch(patch)
        earlier = [[(name, 0) for name in turn] for turn in job.earlier]
        state = real.submit(job.request, [(name, 0) for name in job.names], earlier=earlier)
        real.finish()
    return list(state.prompt_ids), real.heard.pop(state).tokens, torch.stack(bits.logits[state])


def test_the_base_and_a_chat_equal_the_naive_run(real):
    naive = NaiveModel(real.engine)
    base = ask("What is the capital of Portugal?", "base")
    chat = JOBS[8]
    for job in (Job(base), chat):
        prompt, tokens, logits = logits_of(real, job)
        parts = real.engine.read(job.request).parts
        turns, end = [], 0
        names = [*job.earlier, job.names]
        for turn, part, own in zip(job.request.turns, parts, names, strict=True):
            end += len(part)
            chosen = real.chosen([(name, 0) for name in own])
            turns.append(NaiveTurn(turn, tuple(chosen), end))
        expected, _ = naive.read(prompt + tokens, turns)
        off = apart(logits, expected[len(prompt) - 1 : -1])
        print(f"from the naive run: {off:.4f}")
        assert off < 0.08  # 0.02 to 0.06 by prompt and CPU: what bfloat16 rounds
        if len(turns) > 1:
            for shift in (-16, 16):
                wrong = [replace(turns[0], end=turns[0].end + shift), *turns[1:]]
                moved, _ = naive.read(prompt + tokens, wrong)
                far = apart(logits, moved[len(prompt) - 1 : -1])
                print(f"with another boundary: {far:.4f}")
                assert far > 3 * off


# --- what is read once ----------------------------------------------------------------------------


def done(real, work) -> dict[str, float]:
    """What the engine did meanwhile."""
    before = real.engine.stats()
    work()
    after = real.engine.stats()
    return {name: after[name] - before[name] for name in before}


def first_tokens(real, requests) -> list[int]:
    """Steps to each request's first token, all of them asked at once in an empty cache."""
    real.engine._kv.forget()
    count, steps = 0, {}
    states = [real.submit(request, [("squad_v1", 0), ("true_case", 0)]) for request in requests]
    while not real.engine.scheduler.idle:
        count += 1
        for state, _ in real.engine.step():
            steps.setdefault(state, count)
    for state in states:
        assert real.heard.pop(state).answer
    return [steps[state] for state in states]


def test_four_samples_of_a_prompt_read_it_once(real, monkeypatch):
    scheduler = real.engine.scheduler
    monkeypatch.setattr(scheduler, "sizes", replace(scheduler.sizes, prefill_chunk=256))
    one = ask(STORY * 5, raw=True, temperature=1.0, max_new_tokens=4)
    length = len(real.engine.read(one).ids)
    assert 180 <= length <= 220
    samples = [replace(one, seed=seed) for seed in range(4)]
    slowest: dict[int, int] = {}
    for count in (1, 4):

        def work(count: int = count) -> None:
            slowest[count] = max(first_tokens(real, samples[:count]))

        counts, others = done(real, work), count - 1
        assert counts["shared_tokens"] == others * (length - 1)
        assert counts["prefill_tokens"] == length + others
    assert slowest[4] <= slowest[1] + 1, "one more step than one alone, and not four times as many"


def test_an_earlier_turn_is_not_read_again_nor_what_a_branch_begins_with(real):
    real.engine._kv.forget()
    chat = ask("And in bytes?", history=TURN, trace=True, max_new_tokens=8)
    first = ask(TURN[0][0], max_new_tokens=8)
    answers = {}

    def run(name, request, names, earlier=()):
        def work():
            of = [[(one, 0) for one in turn] for turn in (names, *earlier)]
            state = real.submit(request, of[0], earlier=of[1:])
            real.finish()
            answers[name] = list(state.prompt_ids), real.heard.pop(state).tokens

        return done(real, work)

    run("first", first, ["nl2bash"])
    read = len(answers["first"][0])
    counts = run("chat", replace(chat, trace=False), ["spider_sql"], [["nl2bash"]])
    turn = len(real.engine.read(chat).parts[0])
    assert turn > read - 8
    assert counts["shared_tokens"] >= read - 8, "the prompt of the first turn is there"
    prompt, tokens = answers["chat"]
    branch = replace(chat, trace=False, prefix_ids=tokens[:3], without=[("spider_sql", None, None)])
    counts = run("branch", branch, ["spider_sql"], [["nl2bash"]])
    assert counts["prefill_tokens"] == 1
    assert counts["shared_tokens"] == len(prompt) + 2
    counts = run("other adapters", replace(chat, trace=False), ["spider_sql"], [["squad_v1"]])
    assert counts["shared_tokens"] == 0
    assert counts["prefill_tokens"] == len(prompt)
    # the same name with other content
    chosen, swapped = (
        real.chosen,
        lambda contents: [
            replace(one, checksum=one.checksum + " changed") for one in chosen(contents)
        ],
    )
    real.chosen = swapped
    try:
        counts = run("other content", replace(chat, trace=False), ["spider_sql"], [["nl2bash"]])
    finally:
        real.chosen = chosen
    assert counts["shared_tokens"] == 0
