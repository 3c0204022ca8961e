"""What is in the pages: random sequences against a dictionary of all beginnings that were read.

Every token writes a number of its own into its page, known by all tokens before it and by itself,
so that a token that was matched wrongly, or copied wrongly, shows.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from ramole_core import RamoleError
from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.kv import TRACE_SHARE, KvCache, KvSequence
from ramole_core.engine.pages import PAGE, pages_of
from tests.support.page_fakes import page_cache

MIXED, BARE_KEY = b"m" * 16, bytes(16)
"""Tokens that a trace has rows of, and such that need none."""


@dataclass
class Beginnings:
    """The naive model: a number for each beginning, and which were committed."""

    numbers: dict[tuple, int] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)
    traced: set[int] = field(default_factory=set)
    sure: set[int] = field(default_factory=set)
    """Traced in one page with all before them: others' traces may lie in a page beside."""

    def of(self, content: np.ndarray) -> list[int]:
        """The number of content[:1], content[:2], ..."""
        found, before = [], 0
        for token in map(tuple, content.tolist()):
            before = self.numbers.setdefault((before, token), len(self.numbers) + 1)
            found.append(before)
        return found

    def known(self, content: np.ndarray, known: set[int]) -> int:
        """Tokens at the beginning that are among these."""
        numbers = self.of(content[:-1])
        return next((n for n, at in enumerate(numbers) if at not in known), len(numbers))


@dataclass
class Asked:
    """A request that is open."""

    sequence: KvSequence
    content: np.ndarray
    length: int
    traced: bool


class Play:
    """A cache, and the naive model beside it."""

    def __init__(self, pages: int):
        self.kv = page_cache(heads=1, d=1, dtype=torch.float32, pages=pages)
        self.naive = Beginnings()
        self.open: list[Asked] = []
        self.roomy = pages > 50

    def start(self, content: np.ndarray, more: int, traced: bool) -> Asked | None:
        length = min(len(content) + more, self.kv.max_tokens)
        content = content[:length]
        sequence = self.kv.open(content, length, traced=traced)
        if sequence is None:
            assert self.open, "an empty cache has room"
            assert not self.roomy
            return None
        asked = Asked(sequence, content, length, traced)
        self.open.append(asked)
        self.check_match(asked)
        return asked

    def check_match(self, asked: Asked) -> None:
        naive = self.naive
        most = naive.known(asked.content, naive.traced if asked.traced else naive.read)
        assert asked.sequence.length <= most
        least = naive.known(asked.content, naive.sure) if asked.traced else most
        assert asked.sequence.length >= least or not self.roomy
        if asked.traced:
            self.check_gates(asked)

    def check_gates(self, asked: Asked) -> None:
        n = asked.sequence.length
        rows = asked.sequence.gates(0, n)
        numbers = self.naive.of(asked.content[:n])
        for row, number, token in zip(rows, numbers, asked.content, strict=False):
            if self.kind(token) == BARE_KEY:
                assert row is None
            else:
                assert row is not None and row.shape == (2, 2, 1, 3)
                assert row[1, 1, 0, 2] == number % 1000

    @staticmethod
    def kind(token: np.ndarray) -> bytes:
        return token[1:].tobytes()

    @torch.inference_mode()
    def write(self, asked: Asked, n: int, good: bool) -> None:
        """Feed its next n tokens: of its content, then of its answer."""
        sequence, start = asked.sequence, asked.sequence.length
        end = min(start + n, asked.length)
        if end > len(asked.content):  # an answer of one token, again and again
            answer = self.kv.content([7], [(1, self.kind(asked.content[-1]))])
            more = np.repeat(answer, end - len(asked.content), 0)
            asked.content = np.concatenate([asked.content, more])
        if end == start:
            return
        flat = FlatCache(self.kv, [Span(sequence, start, end - start)])
        numbers = self.naive.of(asked.content[:end])[start:]
        written = torch.tensor(numbers if good else [-1] * len(numbers)).float()[
            None, None, :, None
        ]
        flat.update(written, written, 0)
        if not good:
            return
        for at in range(start, end):
            if at == start or self.kind(asked.content[at]) != self.kind(asked.content[at - 1]):
                self.commit(asked, at, end, numbers[at - start :])

    def commit(self, asked: Asked, start: int, end: int, numbers: list[int]) -> None:
        """A run of tokens that are mixed alike."""
        kinds = [self.kind(token) for token in asked.content[start:end]]
        n = next((n for n, kind in enumerate(kinds) if kind != kinds[0]), len(kinds))
        bare = kinds[0] == BARE_KEY
        gates = None
        if asked.traced and not bare:
            gates = torch.tensor(numbers[:n])[:, None, None, None, None] % 1000
            gates = gates.expand(n, 2, 2, 1, 3).to(torch.float16)
        self.kv.commit(asked.sequence, asked.content[start : start + n], gates, traced=bare)
        self.naive.read |= set(numbers[:n])
        if asked.traced or bare:  # what is bare needs no trace, whenever that of others comes
            self.naive.traced |= set(numbers[:n])
        if asked.traced or bare and self.traced_here(asked, start):
            self.naive.sure |= set(numbers[:n])

    def traced_here(self, asked: Asked, start: int) -> bool:
        rows = asked.sequence.gates(0, start)
        kinds = map(self.kind, asked.content)
        return all(
            row is not None or kind == BARE_KEY for row, kind in zip(rows, kinds, strict=False)
        )

    def extend(self, asked: Asked) -> None:
        before = asked.sequence.length
        more = self.kv.extend(asked.sequence, asked.content, traced=asked.traced)
        assert asked.sequence.length == before + more
        if before < len(asked.content) - 1:
            self.check_match(asked)

    def close(self, asked: Asked) -> None:
        self.open.remove(asked)
        self.kv.close(asked.sequence)

    def check(self) -> None:
        """What holds at any time."""
        kv = self.kv
        held = {int(number) for asked in self.open for number in asked.sequence.table}
        assert kv.held_bytes == len(held) * kv.page_bytes
        kept = kv.held_bytes + kv.cached_bytes
        assert kept <= kv.limit + kv.limit // TRACE_SHARE and kv.nbytes <= kv.limit
        owed = sum(pages_of(a.length) - len(a.sequence.table) for a in self.open)
        assert len(held) + owed <= kv.memory.most
        for asked in self.open:
            n, table = asked.sequence.length, asked.sequence.table
            at = torch.arange(n)
            pages = torch.from_numpy(table.astype(np.int64))[at // PAGE]
            wanted = self.naive.of(asked.content[:n])
            if n:
                assert kv.memory.keys[0][pages, 0, 0, at % PAGE].tolist() == wanted
                assert kv.memory.values[0][pages, 0, at % PAGE, 0].tolist() == wanted


runs = st.tuples(
    st.sampled_from((1, 2)),
    st.sampled_from((MIXED, MIXED, BARE_KEY)),
    st.sampled_from((1, 2, 20, 63, 64, 65, 100)),
)
moves = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 4), st.sampled_from((1, 40, 90)), st.booleans()),
    st.tuples(st.just("read"), st.integers(0, 9), st.sampled_from((1, 10, 64, 100)), st.just(True)),
    st.tuples(st.just("read"), st.integers(0, 9), st.sampled_from((1, 64, 999)), st.just(True)),
    st.tuples(st.just("read"), st.integers(0, 9), st.sampled_from((1, 70)), st.just(False)),
    st.tuples(st.just("extend"), st.integers(0, 9), st.none(), st.none()),
    st.tuples(st.just("close"), st.integers(0, 9), st.none(), st.none()),
)


def content_of(kv: KvCache, parts: list[tuple[int, bytes, int]]) -> np.ndarray:
    ids = [token for token, _, n in parts for _ in range(n)]
    ends = np.cumsum([n for *_, n in parts]).tolist()
    return kv.content(ids, [(end, key) for end, (_, key, _) in zip(ends, parts, strict=True)])


A_TRACE_BESIDE = [
    *(("open", 0, 1, False), ("open", 0, 1, True)),
    *(("read", 1, 1, True), ("read", 0, 10, True), ("open", 0, 1, True)),
]
A_TRACE_BEFORE_WHAT_NEEDS_NONE = [
    *(("open", 0, 1, False), ("open", 0, 1, True)),
    *(("read", 0, 999, True), ("read", 1, 64, True), ("open", 0, 1, True)),
]


@settings(max_examples=300, deadline=None)
@example(500, [[(1, MIXED, 1), (1, BARE_KEY, 2)], *[[(1, MIXED, 1)]] * 4], A_TRACE_BESIDE)
@example(
    8, [[(1, MIXED, 1), (1, BARE_KEY, 65)], *[[(1, MIXED, 1)]] * 4], A_TRACE_BEFORE_WHAT_NEEDS_NONE
)
@given(
    pages=st.sampled_from((5, 8, 12, 500)),
    contents=st.lists(st.lists(runs, min_size=1, max_size=3), min_size=5, max_size=5),
    steps=st.lists(moves, min_size=5, max_size=40),
)
def test_a_match_is_what_was_read_and_nobody_runs_out(pages, contents, steps):
    play = Play(pages)
    for name, at, much, flag in steps:
        if name == "open":
            play.start(content_of(play.kv, contents[at]), much, flag)
        elif play.open:
            asked = play.open[at % len(play.open)]
            if name == "read":
                play.write(asked, much, flag)
            else:
                getattr(play, name)(asked)
        play.check()
    while play.open:  # each has all the room that it was promised
        asked = play.open[0]
        play.write(asked, asked.length, True)
        play.check()
        play.close(asked)
        play.check()
    assert play.kv.held_bytes == 0
    play.kv.forget()
    assert play.kv.cached_bytes == 0
    play.naive = Beginnings()
    whole = play.start(content_of(play.kv, [(1, MIXED, 9)]), play.kv.max_tokens, False)
    assert whole is not None and whole.sequence.length == 0


# --- in words ---------------------------------------------------------------------------------


def read_all(play: Play, content: np.ndarray, *, more: int = 1, traced: bool = False) -> Asked:
    asked = play.start(content, more, traced)
    assert asked is not None
    play.write(asked, len(content), True)
    return asked


def test_two_that_read_the_same_at_once_end_in_the_same_pages():
    play = Play(60)
    content = content_of(play.kv, [(1, MIXED, 150)])
    one, two = (play.start(content, 1, False) for _ in range(2))
    assert one is not None and two is not None
    play.write(one, 100, True)
    play.extend(two)
    assert two.sequence.length == 100 and two.sequence.table[0] == one.sequence.table[0]
    for asked in (one, two, one, two):
        play.write(asked, 20, True)
        play.check()
    assert one.sequence.table[1] == two.sequence.table[1]
    assert play.kv.held_bytes == 4 * play.kv.page_bytes, "the last page, in part, is copied"
    other = play.start(content_of(play.kv, [(1, MIXED, 70), (1, BARE_KEY, 80)]), 1, False)
    assert other is not None and other.sequence.length == 70, "the same ids, mixed otherwise"


def test_what_nobody_holds_goes_first_and_the_longest_unused_before():
    play = Play(6)
    contents = [content_of(play.kv, [(token, MIXED, 128)]) for token in (1, 2, 3)]
    for content in contents[:2]:
        play.close(read_all(play, content, more=0))
    assert play.kv.cached_bytes == 4 * play.kv.page_bytes
    again = play.start(contents[0], 0, False)
    assert again is not None and again.sequence.length == 127
    play.close(again)
    play.close(read_all(play, contents[2], more=64))
    found = [play.start(content, 0, False) for content in contents[:2]]
    assert [asked and asked.sequence.length for asked in found] == [127, 64], "a leaf went"


def test_what_is_too_long_is_told():
    kv = page_cache(heads=2, d=4, dtype=torch.float32, pages=3)
    kv.check(192)
    with pytest.raises(RamoleError, match="193 tokens, and the cache of keys and values holds 192"):
        kv.check(193)


def test_trace_rows_of_pages_that_nobody_holds_stay_within_their_share():
    kv = page_cache(heads=1, d=16, dtype=torch.float32, pages=4)
    k = kv.limit // TRACE_SHARE // 2 // PAGE // 2 // 2  # float16 numbers: two pages' rows fill it
    contents = [np.full((PAGE + 1, 3), n) for n in range(3)]
    for content in contents:
        sequence = kv.open(content, PAGE + 1, traced=True)
        kv.reach(sequence, PAGE)
        kv.commit(sequence, content[:PAGE], torch.zeros(PAGE, 2, 1, 1, k).half())
        kv.close(sequence)
    rows = kv.cached_bytes - 3 * kv.page_bytes
    assert rows == 2 * PAGE * 2 * k * 2 <= kv.limit // TRACE_SHARE
    found = []
    for content in contents:
        for traced in (True, False):
            sequence = kv.open(content, PAGE + 1, traced=traced)
            found.append(sequence.length)
            kv.close(sequence)
    assert found == [0, PAGE, PAGE, PAGE, PAGE, PAGE]
    kv.forget()
    assert kv.cached_bytes == 0
