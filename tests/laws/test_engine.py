"""Requests in one engine: forwards, traces, steps, ends, and what stays when they have ended."""

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lab.benchmarks.machine import anonymous_mib
from ramole_core import Generation, RamoleError, Request
from ramole_core.composition import METHODS
from ramole_core.engine import engine as engine_module, model_runner
from ramole_core.engine.decoding import TextStream, choose_token, make_generator
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.kernels.threads import kernels_alone, thread_count
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine

ANT, BEE, CAT, DOG = ("ant", 2), ("bee", 7), ("cat", 4), ("dog", 1)
JOBS = [
    (ask(1, "ramole", trace=True, max_new_tokens=9), [ANT, BEE, CAT]),
    (ask(2, "base"), []),
    (ask(20, "selection", max_new_tokens=9), [DOG]),
    (ask(3, "fusion", max_new_tokens=4), [ANT, DOG]),
    (ask(7, "arrow", temperature=1.1, top_p=0.9, seed=7), [BEE, CAT]),
]


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


def forwards(tiny) -> dict[str, float]:
    return {n: tiny.engine.stats()[n] for n in ("prefill_forwards", "decode_forwards", "replayed")}


def test_one_forward_a_token_whatever_the_batch(tiny):
    calls, before = [], forwards(tiny)
    hook = tiny.base.model.register_forward_pre_hook(lambda *_: calls.append(1))
    states = [tiny.submit(*job) for job in JOBS]
    calls.clear()  # what a method reads before it decides
    tiny.finish()
    hook.remove()
    done = {name: count - before[name] for name, count in forwards(tiny).items()}
    assert done["prefill_forwards"] == 1  # all prompts fit one chunk
    assert done["decode_forwards"] == len(calls) - 1 + done["replayed"] <= 9
    for state in states:
        assert tiny.heard.pop(state).answer.new_tokens == state.request.max_new_tokens


def test_steps_carry_the_gate_that_predicted_them_and_the_last_token_is_never_fed(tiny):
    request, names = JOBS[0]
    (heard,) = tiny.run(JOBS[0])
    trace = heard.answer.trace
    T = trace.prompt_length + request.max_new_tokens
    assert len(trace.tokens) == len(trace.token_ids) == T
    shape = T, len(trace.layers), len(trace.modules), len(names)
    for name, dtype in (("weights", "f2"), ("contribution", "f2"), ("present", "?")):
        rows = getattr(trace, name)
        assert rows.shape == shape and rows.dtype == np.dtype(dtype)
        assert rows[:-1].any() and not rows[-1].any()
        for n, step in enumerate(heard.steps):
            np.testing.assert_array_equal(getattr(step, name), rows[trace.prompt_length + n - 1])
    assert heard.tokens == trace.token_ids[trace.prompt_length :]
    assert "".join(step.text for step in heard.steps) == heard.answer.text
    np.testing.assert_allclose(trace.weights[:-1].sum(-1), 1, atol=2e-3)
    means = trace.contribution.astype(float).mean((1, 2))
    shares = means[:-1] / means[:-1].sum(-1, keepdims=True)
    np.testing.assert_allclose(trace.shares[:-1], shares, atol=1e-5)
    assert not trace.shares[-1].any()


def test_a_cancelled_request_ends_at_once_and_the_others_go_on(tiny):
    alone = [tiny.alone(*job) for job in JOBS]
    states = [tiny.submit(*job) for job in JOBS]
    tiny.engine.step()
    states[0].cancel()
    ended = [item for _, item in tiny.engine.step() if isinstance(item, Generation)]
    assert [one.finish_reason for one in ended] == ["cancelled"]
    assert ended[0].new_tokens == 2  # one of the prompt, one of the decode step
    assert tiny.engine.scheduler.running == 4
    tiny.finish()
    assert [tiny.heard.pop(state).tokens for state in states][1:] == alone[1:]


def test_the_same_seed_gives_the_same_tokens_and_another_does_not(tiny):
    seeds = [tiny.alone(ask(1, "base", temperature=1.5, seed=seed), []) for seed in (3, 3, 4)]
    assert seeds[0] == seeds[1] != seeds[2]
    free = [tiny.alone(ask(1, "base", temperature=1.5), []) for _ in range(2)]
    assert free[0] != free[1], "without a seed each draws anew"


def test_eos_ends_an_answer_unless_it_is_ignored(tiny):
    eos = tiny.base.tokenizer.eos_token_id
    request = Request("a", method="base", max_new_tokens=50, logit_bias={eos: 1e4})
    (heard,) = tiny.run((request, []))
    assert heard.tokens == [eos] and heard.answer.finish_reason == "eos"
    assert "im_end" not in heard.answer.text and heard.answer.new_tokens == 1
    assert heard.answer.trace.token_ids[-1] == eos
    assert tiny.alone(replace(request, ignore_eos=True, max_new_tokens=3), []) == [eos] * 3


def test_a_prompt_longer_than_the_context_gets_a_clear_answer(tiny):
    context = tiny.engine.facts.context
    with pytest.raises(RamoleError, match=rf"tokens.*at most {context}.*shorten"):
        tiny.engine.read(Request("word " * context * 3))
    prompt = tiny.engine.read(Request("a", max_new_tokens=10 * context))
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


TEXT = "a b c naïve ☃ 漢字 end"


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        (TEXT, (), TEXT),
        (TEXT, ("b d", "zzz"), TEXT),
        ("well then STOP here", ("xyz", "STOP"), "well then "),
    ],
)
def test_streamed_text_adds_up_to_what_is_before_a_stop_string(tiny_llama, text, stop, shown):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    stream, pieces = TextStream(tokenizer, stop=stop), []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    else:
        pieces.append(stream.finish())
    assert "".join(pieces) == stream.text == shown and "\ufffd" not in stream.text
    assert stream.stopped == ("" if shown == text else stop[-1])


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_weights_that_overflow_end_their_own_request_with_a_sentence(tiny, temperature):
    huge = ask(1, "mixture", weights=[1e30], adapters=["ant"], temperature=temperature, seed=1)
    alone = tiny.alone(*JOBS[1])
    failed, other = tiny.run((huge, [ANT]), JOBS[1])
    assert isinstance(failed.end, RamoleError)
    assert "too large for the model's precision" in str(failed.end)
    assert other.tokens == alone


@pytest.mark.parametrize("method", ["mixture", "fusion"])
def test_a_large_weight_is_a_number_in_the_trace(tiny, method):
    request = ask(1, method, weights=[1e5], adapters=["ant"], trace=True)
    (heard,) = tiny.run((request, [ANT]))
    weights = heard.answer.trace.weights
    assert np.isfinite(weights).all() and weights.max() > 5e4


def test_tokens_that_another_engine_made_do_not_count_into_the_speed_of_this_one(tiny):
    request = ask(1, "base", max_new_tokens=9)
    (whole,) = tiny.run((request, []))
    prepared = replace(tiny.engine.prepare(request, []), streamed_ids=tuple(whole.tokens[:5]))
    tiny.engine.submit(prepared)
    while not tiny.engine.scheduler.idle:
        (*_, (_, again)) = tiny.engine.step()
    assert (again.text, again.new_tokens) == (whole.answer.text, 9)
    spent = again.seconds - again.first_token_seconds
    assert again.extra["tokens_per_second"] * spent == pytest.approx(4)


def test_a_request_without_adapters_is_the_bases(tiny):
    base = tiny.alone(ask(1, "base"), [])
    for method in METHODS:
        if not METHODS[method].brings:
            assert tiny.alone(ask(1, method), []) == base


# --- memory ---------------------------------------------------------------------------------------

PAGES = 8


@pytest.fixture(scope="module")
def narrow(tiny, tiny_llama, tmp_path_factory):
    page = tiny.engine.bank.page_bytes
    sizes = EngineSizes(
        max_batch=4,
        kv_cache_bytes=320 * tiny.engine._kv.token_bytes,
        device_cache_bytes=PAGES * page,
        host_cache_bytes=12 * page,
        units_dir=tmp_path_factory.mktemp("units"),
    )
    return TinyEngine(tiny_llama, sizes)


def test_no_request_runs_with_anothers_adapter(tiny, narrow):
    """Of many adapters the bank has room for two or three, and not always for both of a request."""
    jobs = [
        (ask(1 + n % 3, "mixture", max_new_tokens=2 + n % 5), [(f"own{n}", 3), (f"too{n}", 2)][:k])
        for n, k in zip(range(30), [1, 2, 1] * 10, strict=True)
    ]
    alone = [tiny.alone(*job) for job in jobs]
    assert len(set(map(tuple, alone))) > 20, "they can be told apart"
    for step in (1, -1):
        assert [heard.tokens for heard in narrow.run(*jobs[::step])] == alone[::step]
    assert narrow.engine.bank.evictions > 20
    assert not any(slot.pins for slot in narrow.engine.bank.slots)


def test_a_request_that_could_never_fit_is_told_what_to_do(narrow):
    with pytest.raises(RamoleError, match="rank units.*RAMOLE_DEVICE_CACHE_MB"):
        narrow.submit(ask(2, "selection"), [("whale", PAGES + 1)])
    assert narrow.alone(ask(2, "selection"), [("whale", PAGES)])
    with pytest.raises(RamoleError, match="tokens.*RAMOLE_KV_CACHE_MB"):
        narrow.submit(ask(2, "base", max_new_tokens=900), ())


def test_nothing_grows_over_1000_requests(tiny, tiny_llama, tmp_path):
    page = tiny.engine.bank.page_bytes
    sizes = EngineSizes(
        device_cache_bytes=8 * PAGES * page, host_cache_bytes=99 * page, units_dir=tmp_path
    )
    tiny.heard.clear()
    narrow, memory = TinyEngine(tiny_llama, sizes), []
    every = [(f"many{turn % 60}", 1 + turn % 4) for turn in range(120)]
    narrow.learn([(name, f"{name}_{rank}") for name, rank in every])  # or gates are made anew
    for turn in range(1000):
        request = ask(1 + turn % 2, "selection", max_new_tokens=1)
        if turn % 5 == 0:
            request = replace(request, method="ramole", trace=True, max_new_tokens=2)
        narrow.submit(request, [every[turn % 120]], session=str(turn))
        if turn % 40 == 39:
            narrow.finish()
            narrow.heard.clear()
        if turn in (299, 999):
            memory.append(anonymous_mib())
    gc.collect()
    assert sum(type(thing) is RequestState for thing in gc.get_objects()) <= 2
    stats = narrow.engine.stats()
    assert stats["host_bytes"] <= narrow.engine.sizes.host_cache_bytes
    assert len(narrow.engine.bank.slots) <= 8 * PAGES
    assert len(narrow.engine.bank.tensors.routers) == 1
    if None not in memory:
        assert memory[1] - memory[0] < 12  # MiB, of 700 requests more


# --- threads --------------------------------------------------------------------------------------


def counts():
    """Threads of PyTorch's loops, and of a kernel's."""
    return torch.get_num_threads(), thread_count()


def mkl_threads():
    """Of PyTorch's products in this thread."""
    return int(torch.__config__.parallel_info().split("mkl_get_max_threads() :")[1].split()[0])


def elsewhere(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("two_threads")
def test_inside_pytorch_has_one_thread_and_a_kernel_as_many_as_before():
    assert elsewhere(counts) == (2, 2)
    with kernels_alone():
        assert counts() == (1, 2) and elsewhere(counts) == (2, 2)
        with kernels_alone():
            assert counts() == (1, 2)
        assert counts() == (1, 2)
    assert counts() == (2, 2)
    with pytest.raises(KeyError), kernels_alone():
        raise KeyError
    assert counts() == (2, 2) and elsewhere(counts) == (2, 2)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch without MKL")
def test_pytorchs_products_have_one_thread_too():
    """The smallest of them leaves a thread behind that takes the core a helper needs."""
    assert mkl_threads() == 2
    with kernels_alone():
        assert mkl_threads() == 1 and elsewhere(mkl_threads) == 2
    assert mkl_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("exact", [True, False])
def test_a_forward_whose_products_are_kernels_runs_so_and_no_other(tiny_llama, monkeypatch, exact):
    if not exact:
        for module in (engine_module, model_runner):
            monkeypatch.setattr(module, "is_exact", lambda model: False)
    tiny, seen = TinyEngine(tiny_llama), set()
    hook = tiny.base.model.register_forward_pre_hook(lambda *_: seen.add(counts()))
    assert len(tiny.alone(ask(3, "selection"), [ANT])) > 1
    hook.remove()
    assert seen == {(1, 2) if exact else (2, 2)} and counts() == (2, 2)
