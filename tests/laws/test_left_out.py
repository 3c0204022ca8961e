"""An adapter that is left out of its turn: the run that its effects were made of, to the bit."""

from dataclasses import replace

import numpy as np
import pytest

from ramole_core import RamoleError, Request
from ramole_core.composition import find_method
from ramole_core.methods import METHOD_LIST
from tests.core.test_ramole import ramole as ramole  # noqa: F401  the fixture
from tests.laws.test_base_expert import RAIN, keen as keen  # noqa: F401  the fixture
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from ui.ask.branch import Change, branched
from ui.charts.run import Run

ASK = {"max_new_tokens": 3, "ignore_eos": True, "effects": True}
FIT = {"examples": [("Is it warm?", "yes")], "options": {"steps": 3}}
PLUS = "ramole_plus"


def asked_of(method) -> Request:
    return Request(RAIN, method=method.name, **ASK, **(FIT if method.fits else {}))


CASES = {method.name: asked_of(method) for method in METHOD_LIST} | {
    "kept": Request("and this one: it was late", method=PLUS, history=[(RAIN, "No.")], **ASK),
    "named": Request(RAIN, method="ramole", adapters=["sums", "poems", "weather"], **ASK),
    "weighed": Request(RAIN, method="mixture", adapters=["sums", "poems"], weights=[2, 1], **ASK),
    "fitted in a conversation": replace(
        asked_of(next(method for method in METHOD_LIST if method.fits)),
        adapters=["weather", "sums"], history=[("One?", "Two.")],
    ),
    "earlier turns of others": Request(
        RAIN, method="similarity", history=[("One?", "Two.", ["sums"]), ("Three?", "Four.", [])],
        **ASK,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_without_any_of_them_is_what_was_measured(keen, case):  # noqa: F811
    request = CASES[case]
    (answer,) = keen.generate([request])
    v, names, trace = answer.subset_logprob, answer.adapters, answer.trace
    assert trace is not None and v is not None and v.shape == (3, 2 ** len(names))
    assert case != "kept" or answer.evidence.decision == "kept"
    run = Run(request, answer, ("",) * len(v))
    same = branched(run, len(v) - 1, Change(token=trace.token_ids[-1]))
    subsets = [[e for e in range(len(names)) if c >> e & 1] for c in range(v.shape[1])]
    asked = [
        replace(same, without=[(n, None, None, "turn") for e, n in enumerate(names) if e not in s])
        for s in subsets
    ]
    for subset, column, again in zip(subsets, v.T, keen.generate(asked), strict=True):
        np.testing.assert_array_equal(again.logprob[: len(v)], column)
        every = find_method(request.method).brings and subset
        assert again.adapters == (names if every else [names[e] for e in subset])


def test_what_if_asks_for_it_and_nobody_left_is_the_base(keen):  # noqa: F811
    request = CASES[PLUS]
    (answer,) = keen.generate([request])
    run = Run(request, answer, ("",) * 3)
    one = branched(run, 1, Change(True, answer.adapters[0], unfound=True))
    assert one == replace(
        request, prefix_ids=one.prefix_ids, without=[(answer.adapters[0], None, None, "turn")]
    )
    assert keen.select(one).adapters == tuple(answer.adapters[1:])
    nobody = branched(run, 0, Change(True, unfound=True))
    bare, base = keen.generate([nobody, replace(request, method="base")])
    assert bare.trace.token_ids == base.trace.token_ids and bare.adapters == []
    assert bare.effects.shape == (3, 0)
    np.testing.assert_array_equal(bare.logprob, base.logprob)
    first = answer.trace.prompt_length - 1
    told = keen.explain(nobody, first, token_ids=answer.trace.token_ids)
    assert told.mixture == told.base


@pytest.mark.parametrize(
    ("off", "said"),
    [
        (("weather", 3, None, "turn"), "leaves an adapter out as a whole"),
        (("weather", None, "q_proj", "turn"), "leaves an adapter out as a whole"),
        (("weather", None, None, "turns"), "'turn' leaves an adapter out of the whole turn"),
        (("zebra", None, None, "turn"), "without names the adapter 'zebra', and this request"),
    ],
)
def test_what_cannot_be_left_out_is_a_sentence(ramole, off, said):  # noqa: F811
    with pytest.raises(RamoleError, match=said):
        ramole.select(Request(RAIN, without=[off], **ASK))
