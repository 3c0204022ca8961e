"""Attention over pages: the same bits in any batch, and a softmax's numbers."""

from itertools import count, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numba import njit

from ramole_core.engine.compiled_attention import CompiledAttention
from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.pages import PAGE
from ramole_core.kernels.softmax import soften
from tests.support.page_fakes import Tokens, forward, page_cache, soil

SIZES = (  # heads that share a key head, key heads, d, dv
    (1, 3, 8, 8),
    (3, 2, 24, 40),
    (2, 3, 40, 24),
    (3, 3, 64, 64),
    (4, 1, 80, 80),
    (50, 1, 12, 12),
)
DTYPES = (torch.float32, torch.bfloat16)
WINDOWS = (None, 5, 70)
DEVIATION = {torch.float32: 1.5e-5, torch.bfloat16: 2.5e-2}


def cache_for(sizes, dtype, pages=24):
    _, heads, d, dv = sizes
    return page_cache(heads=heads, d=max(d, dv), dtype=dtype, pages=pages)


def tokens_of(n, sizes, dtype, seed):
    shared, heads, d, dv = sizes
    return Tokens(n, shared=shared, heads=heads, d=d, dv=dv, dtype=dtype, seed=seed)


def alone(tokens, sizes, **options):
    kv = cache_for(sizes, tokens.k.dtype)
    sequence = kv.open(tokens.content, tokens.n)
    return forward(kv, [(tokens, sequence, tokens.n)], **options)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("compiled", [True, False])
def test_it_is_attention(dtype, sizes, window, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(CompiledAttention, "knows", lambda keys: False)
    tokens = tokens_of(150, sizes, dtype, 1)
    for scale in (None, 0.31):
        found = alone(tokens, sizes, window=window, scale=scale)
        wanted = tokens.naive(window=window, scale=scale)[0]
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=DEVIATION[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("compiled", [True, False])
def test_scores_that_are_capped_and_scores_without_a_value(dtype, window, compiled, monkeypatch):
    """cap tanh(s / cap) (Gemma 2), and one more score of each head (gpt-oss)."""
    if not compiled:
        monkeypatch.setattr(CompiledAttention, "knows", lambda keys: False)
    sizes = SIZES[1]
    tokens = tokens_of(150, sizes, dtype, 1)
    sinks = torch.linspace(-2, 5, sizes[0] * sizes[1])
    plain = alone(tokens, sizes, window=window)
    for cap, beside in ((3.0, None), (None, sinks), (2.0, sinks)):
        found = alone(tokens, sizes, window=window, cap=cap, sinks=beside)
        wanted = tokens.naive(window=window, cap=cap, sinks=beside)[0]
        assert (found.double() - plain.double()).abs().max() > 0.1
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=DEVIATION[dtype])


def test_a_cap_and_sinks_change_no_bit_beside_others():
    sizes, sinks = SIZES[4], torch.linspace(-2, 5, 4)
    requests = [tokens_of(n, sizes, torch.bfloat16, 30 + n) for n in (130, 17)]
    kv = cache_for(sizes, torch.bfloat16)
    places = [kv.open(tokens.content, tokens.n) for tokens in requests]
    said = {"cap": 2.0, "sinks": sinks}
    given = [(tokens, place, tokens.n) for tokens, place in zip(requests, places, strict=True)]
    for tokens, found in zip(requests, forward(kv, given, **said), strict=True):
        assert torch.equal(found, alone(tokens, sizes, **said))


def schedule_for(lengths, chunks):
    """(request, count) of every forward: chunks of the requests in turn, several side by side."""
    read = [0] * len(lengths)
    for turn in count(0):
        parts = []
        for request, n in enumerate(lengths):
            fed = min(chunks[(turn + request) % len(chunks)], n - read[request])
            if fed:
                parts.append((request, fed))
                read[request] += fed
        if parts:
            yield parts
        elif read == lengths:
            return


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.sampled_from(SIZES),
    dtype=st.sampled_from(DTYPES),
    window=st.sampled_from(WINDOWS),
    lengths=st.lists(st.sampled_from((1, 2, 17, 63, 64, 65, 130, 200)), min_size=1, max_size=4),
    chunks=st.lists(st.sampled_from((0, 1, 1, 2, 7, 16, 40, 64, 100)), min_size=1, max_size=7),
    compiled=st.sampled_from((True, True, True, False)),
)
def test_no_batch_and_no_chunk_changes_a_bit(sizes, dtype, window, lengths, chunks, compiled):
    check_bits(sizes, dtype, window, lengths, [*chunks, 3], compiled)


def check_bits(sizes, dtype, window, lengths, chunks, compiled=True):
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(CompiledAttention, "knows", lambda keys: False)
        requests = [tokens_of(n, sizes, dtype, 10 + at) for at, n in enumerate(lengths)]
        kv = cache_for(sizes, dtype)
        soil(kv, requests[-1])
        places = [kv.open(tokens.content, tokens.n) for tokens in requests]
        found = [[] for _ in requests]
        for parts in schedule_for(lengths, chunks):
            given = [(requests[at], places[at], fed) for at, fed in parts]
            for (at, _), out in zip(parts, forward(kv, given, window=window), strict=True):
                found[at].append(out)
        for tokens, pieces in zip(requests, found, strict=True):
            one, whole = torch.cat(pieces), alone(tokens, sizes, window=window)
            if compiled:
                assert torch.equal(one, whole)
            else:
                atol = DEVIATION[dtype]
                torch.testing.assert_close(one, whole, rtol=0, atol=atol)


def test_two_spans_of_one_request_see_each_other():
    tokens = tokens_of(90, SIZES[1], torch.bfloat16, 5)
    kv = cache_for(SIZES[1], torch.bfloat16)
    sequence = kv.open(tokens.content, 90)
    flat = FlatCache(kv, [Span(sequence, 0, 70), Span(sequence, 70, 20)])
    with torch.inference_mode():
        flat.update(tokens.k, tokens.v, 0)
        found = flat.attend(tokens.q, 0, scale=None, window=None)[0]
    assert torch.equal(found, alone(tokens, SIZES[1]))
    assert flat.positions.tolist() == [list(range(90))] and flat.get_seq_length() == 89


def test_what_a_later_token_says_does_not_reach_an_earlier_one():
    """Not even where it is no number, in the same tile."""
    tokens = tokens_of(70, SIZES[3], torch.float32, 6)
    wanted = alone(tokens, SIZES[3])
    tokens.v[:, :, 66], tokens.k[:, :, 66] = torch.inf, torch.nan
    found = alone(tokens, SIZES[3])
    assert torch.equal(found[:66], wanted[:66]) and not found[66:].isfinite().any()
    found = alone(tokens, SIZES[3], window=2)
    assert found[68:].isfinite().all() and not found[66:68].isfinite().any()


def test_the_weights_of_a_softmax():
    """exp within 1e-7 (relative), 0 where a number is not seen, and what is no number stays so."""
    soften_at = njit(lambda *places: soften(*places))
    pick = np.random.default_rng(0)
    for low, high in ((0, PAGE), (3, 41), (63, 64)):
        scores = pick.uniform(-80, 5, PAGE).astype(np.float32)
        before = scores.astype(np.float64)
        largest, total = np.array([1.5], np.float32), np.array([2.0], np.float32)
        places = scores.ctypes.data, low, high, largest.ctypes.data, total.ctypes.data
        shrink = soften_at(*places)
        most = max(1.5, before[low:high].max())
        assert largest[0] == np.float32(most)
        np.testing.assert_allclose(shrink, np.exp(1.5 - most), rtol=3e-7)
        # the difference is rounded before exp sees it
        seen = np.float32(before[low:high]) - np.float32(most)
        wanted = np.exp(np.float64(seen))
        np.testing.assert_allclose(scores[low:high], wanted, rtol=1.5e-7)
        assert not scores[:low].any() and not scores[high:].any()
        np.testing.assert_allclose(total[0], 2 * np.exp(1.5 - most) + wanted.sum(), rtol=5e-7)
    scores = np.array([-1000.0, np.nan, -np.inf, 0.0] * (PAGE // 4), np.float32)
    largest, total = np.array([0.0], np.float32), np.array([0.0], np.float32)
    soften_at(scores.ctypes.data, 0, PAGE, largest.ctypes.data, total.ctypes.data)
    assert scores[0] == scores[2] == 0 and np.isnan(scores[1]) and scores[3] == 1


def check_attention() -> None:
    """In a process with other vectors: `test_kernels.py`."""
    for dtype, sizes in product(DTYPES, SIZES[1:4]):
        check_bits(sizes, dtype, 70, [130, 17, 65], [1, 7, 40])
        tokens = tokens_of(100, sizes, dtype, 1)
        assert (alone(tokens, sizes) - tokens.naive()[0]).abs().max() < DEVIATION[dtype]
