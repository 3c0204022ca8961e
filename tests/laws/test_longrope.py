"""Longrope: a request has the short or the long factors from its first token to its last."""

import pytest
import torch

from ramole_core import Request
from tests.support.served_base import ServedBase
from tests.support.tiny_bases import BASES, save_tiny_base

PROMPT = "one two three four five six " * 3  # 84 tokens: a page of 64, and more
FIRST = 100
"""Tokens up to which the short factors hold."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longrope")
    made = ServedBase(save_tiny_base(BASES["phi3 with longrope"], folder))
    yield made
    made.engine.close()


def asked(n: int, **said) -> Request:
    words = {"method": "base", "raw": True, "max_new_tokens": n, "ignore_eos": True}
    return Request(**{"prompt": PROMPT, **words, **said})


def tokens(served, *requests) -> list[list[int]]:
    states = [served.submit(request, ()) for request in requests]
    served.finish()
    return [served.heard.pop(state).tokens for state in states]


@torch.inference_mode()
def by_itself(served, n: int, *, long: bool) -> list[int]:
    """Greedy, each step a forward of the whole; the long factors by a token far behind."""
    rotary = served.own.model.rotary_emb
    ids = served.ids(PROMPT)
    for _ in range(n):
        if long:  # transformers asks for the largest position
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(rotary.config.rope_parameters, "original_max_position_embeddings", 1)
                logits = served.own(input_ids=torch.tensor([ids]), use_cache=False).logits
        else:
            logits = served.own(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[-n:]


def test_requests_of_both_kinds_run_side_by_side(served):
    assert len(served.ids(PROMPT)) == 84
    short, long = FIRST - 84, FIRST - 84 + 1
    before = served.engine.stats()["replayed"]
    together = tokens(served, asked(short), asked(long, prompt=PROMPT))
    assert served.engine.stats()["replayed"] > before
    assert together[0] == by_itself(served, short, long=False)
    assert together[1] == by_itself(served, long, long=True)
    assert together[0] != together[1][:short]


def test_what_a_short_request_left_is_not_found_by_a_long_one(served):
    served.engine.forget_prefixes()
    alone = tokens(served, asked(40))
    served.engine.forget_prefixes()
    tokens(served, asked(5))
    assert tokens(served, asked(40)) == alone
    assert tokens(served, asked(5)) == [by_itself(served, 5, long=False)]


def test_a_look_into_an_answer_has_the_factors_of_its_request(served):
    for n, long in ((5, False), (40, True)):
        one = served.engine.prepare(asked(n), ())
        (found,) = served.engine.next_tokens([one], served.ids(PROMPT), top=1)
        assert found.ids == by_itself(served, 1, long=long)
