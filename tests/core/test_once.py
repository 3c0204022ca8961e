"""A prompt is tokenised once and embedded once: in a batch together, on the page, with its base."""
# ruff: noqa: F811

import numpy as np
import pytest

from ramole_core import Request
from ramole_core.retrieval.encoder import MAX_CACHED, RecentVectors
from ramole_core.selection.selector import BATCH_SIZE
from tests.core.test_ramole import ramole  # noqa: F401  the fixture

ASK = {"max_new_tokens": 3, "ignore_eos": True}


@pytest.fixture
def counted(ramole, monkeypatch):
    """How many texts each call of the encoder, and of the tokenizer, was given."""
    ramole.load()
    calls = {"embedded": [], "read": []}
    embed, read = ramole.retriever._encoder.embed, ramole.engine.read

    def counting_embed(texts):
        calls["embedded"].append(list(texts))
        return embed(texts)

    def counting_read(request):
        calls["read"].append(request.prompt)
        return read(request)

    monkeypatch.setattr(ramole.retriever, "recent", RecentVectors(counting_embed))
    monkeypatch.setattr(ramole.engine, "read", counting_read)
    return calls


@pytest.mark.parametrize("method", ["ramole", "ramole_plus", "selection", "mixture"])
def test_a_batch_is_embedded_together_and_read_once(ramole, counted, method):
    prompts = [f"Is rain number {n} on the way?" for n in range(5)]
    ramole.generate([Request(prompt, method=method, **ASK) for prompt in prompts])
    assert counted["embedded"] == [prompts]
    assert counted["read"] == prompts


def test_a_long_list_is_embedded_once_too(ramole, counted, monkeypatch):
    monkeypatch.setattr("ramole_core.selection.selector.BATCH_SIZE", 4)
    monkeypatch.setattr("ramole_core.retrieval.encoder.MAX_CACHED", 4)
    prompts = [f"Is it rain or hail, {n}?" for n in range(10)]
    ramole.candidates([Request(prompt, method="mixture", **ASK) for prompt in prompts])
    assert counted["embedded"] == [prompts[:4], prompts[4:8], prompts[8:]]


def test_what_needs_no_vector_is_not_embedded(ramole, counted):
    named = Request("b", method="ramole", adapters=["sums"], **ASK)
    ramole.generate([Request("a", method="base", **ASK), named])
    assert counted["embedded"] == []


def test_the_page_asks_the_encoder_once(ramole, counted):
    from ui.ask.answer import Live, answer

    ramole.start()
    request = Request("Will it rain on the page?", method="ramole_plus", **ASK)
    live = Live()
    assert list(answer(ramole, request, live, beside=True))[-1].run is not None
    assert counted["embedded"] == [["Will it rain on the page?"]]
    assert counted["read"] == ["Will it rain on the page?"] * 2, "the request, and the bare base"


def test_a_fixed_number_of_vectors_is_kept_and_no_text():
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return np.zeros((len(texts), 3), np.float32)

    recent = RecentVectors(embed)
    recent(["a", "b", "a"])
    assert calls == [2]
    recent([str(n) for n in range(MAX_CACHED)])
    recent(["a"])
    assert calls == [2, MAX_CACHED, 1] and len(recent._kept) == MAX_CACHED
    assert not any(isinstance(key, str) for key in recent._kept)


@pytest.mark.parametrize("place", ["parts", "embedding", "examining"])
def test_a_long_batch_is_cancelled_while_its_adapters_are_looked_up(
    ramole, counted, monkeypatch, place
):
    """Some seconds for 200 rows: who presses Stop does not wait for all of them."""
    cut, examined, examine = [], [], ramole.engines.examine
    of = ramole._parts.of
    monkeypatch.setattr(ramole._parts, "of", lambda one: cut.append(one) or of(one))

    def examining(prompts, candidates, **said):
        examined.append(len(prompts))
        return examine(prompts, candidates, **said)

    monkeypatch.setattr(ramole.engines, "examine", examining)
    done = {"parts": cut, "embedding": counted["embedded"], "examining": examined}[place]
    prompts = [f"Is rain number {n} on the way?" for n in range(3 * BATCH_SIZE)]
    requests = [Request(prompt, method="ramole_plus", **ASK) for prompt in prompts]
    stream = ramole.stream_batch(requests, cancelled=lambda: bool(done))
    ends = [(index, item.finish_reason, item.text) for index, item in stream]
    assert ends == [(n, "cancelled", "") for n in range(len(prompts))]
    assert len(cut) == (1 if place == "parts" else len(prompts))
    texts = sum(map(len, counted["embedded"]))
    assert texts == {"parts": 0, "embedding": BATCH_SIZE, "examining": len(prompts)}[place]
    assert examined == ([BATCH_SIZE] if place == "examining" else [])
    answer = ramole.generate(requests[:1])[0]
    assert answer.new_tokens and answer.finish_reason != "cancelled"
