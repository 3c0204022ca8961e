"""Batches of different requests: one forward a token, and nobody feels anybody."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from ramole_core.composition import METHODS, Candidate, Lora
from ramole_core.engine.decoding import TextStream, choose_token, make_generator
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request, Step
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.tiny_engine import TinyEngine

PROMPTS = ["one", "two words", "a longer prompt with more words in it", "b", "c d e f g"]


@pytest.fixture(scope="module")
def parts(tiny_llama):
    """Engine on the tiny model in fp32, adapters of several ranks, and a counter of forwards."""
    tiny = TinyEngine(tiny_llama)
    torch.manual_seed(1)
    pool = {}
    for name, rank in (("ant", 2), ("bee", 7), ("cat", 4), ("dog", 1)):
        pool[name] = {
            path: Lora(A=torch.randn(rank, i) * i**-0.5, B=torch.randn(o, rank) * 0.7)
            for path, (i, o) in tiny.shapes.items()
        }
    for path in list(tiny.shapes)[::2]:
        del pool["cat"][path]
    calls = []
    tiny.base.model.register_forward_pre_hook(lambda *_: calls.append(1))
    return SimpleNamespace(
        engine=tiny.engine, pool=pool, calls=calls, tokenizer=tiny.base.tokenizer
    )


def choose(parts, names):
    return [Candidate(name, 0.5, name, lambda name=name: parts.pool[name]) for name in names]


def submit(parts, jobs):
    prepared = [parts.engine.prepare(request, choose(parts, names)) for request, names in jobs]
    return [parts.engine.submit(one) for one in prepared]


def finish(parts) -> dict:
    """Step until nothing is left: the answer of each state."""
    answers = {}
    while not parts.engine.scheduler.idle:
        for state, item in parts.engine.step():
            if isinstance(item, Generation):
                answers[state] = item
    return answers


def run(parts, jobs) -> list[Generation]:
    states = submit(parts, jobs)
    answers = finish(parts)
    return [answers[state] for state in states]


def ask(prompt, method, **options):
    options = {"max_new_tokens": 9, "ignore_eos": True, **options}
    return Request(prompt, method=method, **options)


MIXED = [
    (ask(PROMPTS[0], "ramole"), ["ant", "bee", "cat"]),
    (ask(PROMPTS[1], "base"), []),
    (ask(PROMPTS[2], "selection"), ["dog"]),
    (ask(PROMPTS[3], "mixture"), ["bee", "cat", "dog", "ant"]),
    (ask(PROMPTS[4], "fusion", max_new_tokens=4), ["ant", "dog"]),
    (ask(PROMPTS[0], "uniform_router", temperature=0.8, seed=5), ["cat", "dog"]),
    (ask(PROMPTS[2], "random_router", max_new_tokens=2), ["cat", "ant"]),
    (ask(PROMPTS[1], "ramole", temperature=1.1, top_p=0.9, seed=7), ["bee"]),
    (ask(PROMPTS[4], "ramole_plus"), ["dog", "cat", "bee"]),
    (ask(PROMPTS[3], "similarity", options={"temperature": 0.5}), ["ant", "bee"]),
    (ask(PROMPTS[0], "arrow", options={"top": 2}), ["dog", "cat", "bee"]),
]
MIXED += [
    (ask(PROMPTS[n % len(PROMPTS)], method), ["bee", "cat", "ant"])
    for n, method in enumerate(sorted(set(METHODS) - {request.method for request, _ in MIXED}))
]
"""Every method of the registry is in the batch."""


def test_different_requests_give_what_they_give_alone(parts):
    together = run(parts, MIXED)
    assert len({tuple(answer.trace.token_ids) for answer in together}) == len(MIXED)
    for job, answer in zip(MIXED, together, strict=True):
        alone = run(parts, [job])[0]
        assert answer.trace.token_ids == alone.trace.token_ids
        assert answer.text == alone.text
        for name in ("weights", "contribution", "present"):
            ours, lone = getattr(answer.trace, name), getattr(alone.trace, name)
            np.testing.assert_array_equal(ours, lone)
            assert ours.any() or job[0].method == "base"
        assert answer.new_tokens == job[0].max_new_tokens


def test_one_forward_a_token_whatever_the_batch(parts):
    before = parts.engine.stats()
    submit(parts, MIXED)
    parts.calls.clear()  # what a method reads before it decides
    finish(parts)
    after = parts.engine.stats()
    read = after["prefill_forwards"] - before["prefill_forwards"]
    assert read == 1  # all prompts fit one chunk
    longest = max(request.max_new_tokens for request, _ in MIXED)
    forwards = after["decode_forwards"] - before["decode_forwards"]
    replayed = after["replayed"] - before["replayed"]
    assert forwards == len(parts.calls) - read + replayed <= longest


def test_the_trace_has_a_row_a_token_and_the_last_is_never_fed(parts):
    request, names = MIXED[0]
    trace = run(parts, [MIXED[0]])[0].trace
    T = trace.prompt_length + request.max_new_tokens
    assert len(trace.tokens) == len(trace.token_ids) == T
    assert trace.weights.shape == (T, len(trace.layers), len(trace.modules), len(names))
    assert trace.weights.dtype == np.float16
    np.testing.assert_allclose(trace.weights[:-1].sum(-1), 1, atol=2e-3)
    assert not trace.weights[-1].any()
    assert trace.contribution.shape == trace.present.shape == trace.weights.shape
    assert trace.contribution.dtype == np.float16 and trace.present.dtype == np.bool_
    assert not trace.contribution[-1].any() and not trace.present[-1].any()
    means = trace.contribution.astype(float).mean((1, 2))
    shares = means[:-1] / means[:-1].sum(-1, keepdims=True)
    np.testing.assert_allclose(trace.shares[:-1], shares, atol=1e-5)
    assert not trace.shares[-1].any()


def test_steps_carry_the_gate_that_predicted_them(parts):
    submit(parts, MIXED[:1])
    items = []
    while not parts.engine.scheduler.idle:
        items += [item for _, item in parts.engine.step()]
    *steps, answer = items
    trace = answer.trace
    for n, step in enumerate(steps):
        row = trace.prompt_length + n
        assert step.token == trace.token_ids[row]
        np.testing.assert_array_equal(step.weights, trace.weights[row - 1])
        np.testing.assert_array_equal(step.contribution, trace.contribution[row - 1])
        np.testing.assert_array_equal(step.present, trace.present[row - 1])
    assert "".join(step.text for step in steps) == answer.text


def test_a_cancelled_request_ends_at_once_and_the_others_go_on(parts):
    states = submit(parts, MIXED[:4])
    parts.engine.step()
    states[0].cancel()
    ended = dict(
        (state, item) for state, item in parts.engine.step() if isinstance(item, Generation)
    )
    assert list(ended) == [states[0]] and ended[states[0]].finish_reason == "cancelled"
    assert ended[states[0]].new_tokens == 2  # one of the prompt, one of the decode step
    assert parts.engine.scheduler.running == 3
    answers = finish(parts)
    for index in (1, 2, 3):
        expected = run(parts, [MIXED[index]])[0]
        assert answers[states[index]].trace.token_ids == expected.trace.token_ids


def test_the_same_seed_gives_the_same_tokens_and_another_does_not(parts):
    answers = [
        run(parts, [(ask("hello", "base", temperature=1.5, seed=seed), [])])[0].trace.token_ids
        for seed in (3, 3, 4)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_eos_ends_an_answer_unless_it_is_ignored(parts):
    eos = parts.tokenizer.eos_token_id
    submit(parts, [(Request("a", method="base", max_new_tokens=50), [])])
    parts.engine.step()
    head = parts.engine._base.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda m, a, y: y.index_fill(-1, torch.tensor([eos]), 1e4))
    parts.engine._runner.forget()  # what is replayed meets no hook
    (_, step), (_, answer) = parts.engine.step()
    handle.remove()
    assert isinstance(step, Step) and step.token == eos
    assert answer.finish_reason == "eos" and parts.engine.scheduler.idle
    assert "im_end" not in answer.text
    assert answer.trace.token_ids[-1] == eos and answer.new_tokens == 3


def test_a_stop_string_ends_the_answer_before_it(parts):
    whole = run(parts, [(ask("hello", "base", max_new_tokens=12), [])])[0].text
    assert len(whole) > 6
    stop = whole[4:6]
    answer = run(parts, [(ask("hello", "base", max_new_tokens=12, stop=[stop]), [])])[0]
    assert answer.finish_reason == "stop"
    assert answer.text == whole[: whole.index(stop)]


def test_a_prompt_longer_than_the_context_gets_a_clear_answer(parts):
    context = parts.engine.facts.context
    with pytest.raises(RamoleError, match=rf"tokens.*at most {context}.*shorten"):
        parts.engine.read(Request("word " * context * 3))
    prompt = parts.engine.read(Request("a", max_new_tokens=10 * context))
    assert len(prompt.ids) + prompt.room == context


def test_a_nucleus_keeps_only_the_likeliest():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    request = Request("a", temperature=1.0, top_p=0.5, seed=0)
    generator = make_generator(request)
    assert {choose_token(logits, request, generator=generator) for _ in range(50)} == {0}
    free = Request("a", temperature=1.0, seed=0)
    draws = [choose_token(logits, free, generator=generator) for _ in range(3000)]
    shares = torch.bincount(torch.tensor(draws), minlength=4) / 3000
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)


@pytest.mark.parametrize("stop", [(), ("xyz",), ("b d", "zzz")])
def test_streamed_text_adds_up(tiny_llama, stop):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ids = tokenizer("a b c naïve ☃ 漢字 end", add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer, stop=stop)
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == stream.text == tokenizer.decode(ids, skip_special_tokens=True)
    assert "\ufffd" not in stream.text


def test_nothing_past_a_stop_string_is_ever_streamed(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ids = tokenizer("well then STOP here", add_special_tokens=False)["input_ids"]
    stream, shown = TextStream(tokenizer, stop=["STOP"]), ""
    for token in ids:
        shown += stream.push(token)
        if stream.stopped:
            break
    assert stream.stopped and shown == stream.text == "well then "


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_weights_that_overflow_end_their_own_request_with_a_sentence(parts, temperature):
    huge = ask("one", "mixture", weights=[1e30], adapters=["ant"], temperature=temperature, seed=1)
    other = ask("two words", "base")
    (alone,) = run(parts, [(other, [])])
    states, found = submit(parts, [(huge, ["ant"]), (other, [])]), {}
    while not parts.engine.scheduler.idle:
        found |= {state: item for state, item in parts.engine.step() if not isinstance(item, Step)}
    assert isinstance(found[states[0]], RamoleError)
    assert "too large for the model's precision" in str(found[states[0]])
    assert found[states[1]].text == alone.text


def test_a_large_weight_is_a_number_in_the_trace(parts):
    (answer,) = run(parts, [(ask("one", "mixture", weights=[1e5], adapters=["ant"]), ["ant"])])
    (merged,) = run(parts, [(ask("one", "fusion", weights=[1e5], adapters=["ant"]), ["ant"])])
    for trace in (answer.trace, merged.trace):
        assert np.isfinite(trace.weights).all() and trace.weights.max() > 5e4


def test_tokens_that_another_engine_made_do_not_count_into_the_speed_of_this_one(parts):
    asked = parts.engine.prepare(ask("one", "base"), [])
    states = [parts.engine.submit(asked)]
    whole = finish(parts)[states[0]]
    known = tuple(whole.trace.token_ids[whole.trace.prompt_length :][:5])
    state = parts.engine.submit(replace(asked, streamed_ids=known))
    again = finish(parts)[state]
    assert (again.text, again.new_tokens) == (whole.text, 9)
    spent = again.seconds - again.first_token_seconds
    assert again.extra["tokens_per_second"] * spent == pytest.approx(9 - len(known))
