"""Which prompts a chunk reads: in order, and short ones beside a long one."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ramole_core.engine.prefill import next_chunk
from ramole_core.engine.request_state import RequestState


class Prompt(RequestState):
    """A request of which nothing else is asked."""

    def __init__(self):
        self.segment_end = 0

    @property
    def segment(self):
        return SimpleNamespace(end=self.segment_end)


def prompt(number: int, left: int, *, start: int = 0, cut: int = 10**6, like: int | None = None):
    """A request with so many tokens left; `like`: its first tokens are that request's."""
    state = Prompt()
    state.number, state.segment_end = number, cut
    state.ids = (np.arange(start + left) + 10_000 * (number if like is None else like)).tolist()
    state.content = np.array(state.ids)[:, None]
    state.sequence = SimpleNamespace(length=start)
    state.request = SimpleNamespace(trace=False)
    state.segments = SimpleNamespace(mixed=True)
    return state


def counts(chunk) -> dict[int, int]:
    return {share.state.number: share.count for share in chunk}


@pytest.mark.parametrize(
    ("lengths", "read"),
    [
        ([], {}),
        ([4000], {0: 256}),
        ([4000, 60], {0: 196, 1: 60}),
        ([4000, 4000, 60], {0: 196, 2: 60}),
        ([4000, 100, 60, 20], {0: 176, 3: 20, 2: 60}),
        ([4000, 3000], {0: 256}),
        ([100, 100, 100], {0: 100, 1: 100, 2: 56}),
        ([100, 4000], {0: 100, 1: 156}),
        ([200, 60, 60, 60], {0: 136, 1: 60, 2: 60}),
    ],
)
def test_short_prompts_do_not_wait_for_a_long_one(lengths, read):
    assert counts(next_chunk([prompt(n, left) for n, left in enumerate(lengths)], 256)) == read


def test_a_share_ends_with_its_segment():
    long, other = prompt(0, 500, cut=90), prompt(1, 80, cut=50)
    assert counts(next_chunk([long, other], 256)) == {0: 90, 1: 50}


def test_who_needs_the_same_tokens_waits():
    assert counts(next_chunk([prompt(0, 4000), prompt(1, 60, like=0)], 256)) == {0: 256}


@pytest.mark.parametrize("known", [0, 1, 20, 40])
def test_a_request_is_compared_by_what_is_known_of_it(known):
    """Nothing of one whose prompt is rated, the prompt alone of one that is read again."""
    first, second = prompt(0, 60), prompt(1, 90, like=0)
    first.content = first.content[:known]
    waits = known >= 8
    assert counts(next_chunk([first, second], 256)) == ({0: 60} if waits else {0: 60, 1: 90})
    assert counts(next_chunk([second, first], 256))[1] == 90


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=9), st.sampled_from([7, 64, 256]))
def test_the_first_has_half_and_nothing_is_left_over(lengths, budget):
    read = counts(next_chunk([prompt(n, left) for n, left in enumerate(lengths)], budget))
    assert sum(read.values()) == min(budget, sum(lengths))
    assert read[0] >= min(lengths[0], budget - budget // 2)
    assert all(0 < count <= lengths[n] for n, count in read.items())
