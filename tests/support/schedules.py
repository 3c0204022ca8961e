"""Schedules of requests in one engine, and each of them alone: how many numbers differ."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, Phase, settings, strategies as st

from ramole_core import Generation, Request
from ramole_core.engine.request_state import RequestState
from ramole_core.request_parts import read_without
from tests.support.tiny_engine import Heard, TinyEngine

WORDS = "one two three four five six seven eight nine ten a b c d e f g".split()
Versions = Mapping[str, int]
"""Of each adapter's name; another version has other weights."""


@dataclass(frozen=True)
class Job:
    """A request and the adapters of its turns."""

    request: Request
    names: tuple[str, ...] = ()
    earlier: tuple[tuple[str, ...], ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.names, *(n for turn in self.earlier for n in turn))))

    @property
    def has_fixed_start(self) -> bool:
        """Whether what is off or weighed anew does not follow from how much is given."""
        return not self.request.later_weights and all(
            off.start is not None for off in read_without(self.request.without)
        )


def ask(words: int, method: str = "ramole", **options) -> Request:
    prompt = " ".join((WORDS * 9)[:words])
    options = {"max_new_tokens": 6, "ignore_eos": True, "trace": False} | options
    return Request(prompt, method=method, **options)


def events_of(jobs: Sequence[Job], *, names: int, chunks: Sequence[int]):
    """What may happen: the strategy of one event."""
    return st.one_of(
        st.tuples(st.just("ask"), st.integers(0, len(jobs) - 1), st.integers(0, 6)),
        st.tuples(st.just("ask"), st.integers(0, len(jobs) - 1), st.just(0)),
        st.tuples(st.just("step"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0)),
        *(
            st.tuples(st.just(what), st.integers(0, names - 1), st.just(0))
            for what in ("replace", "remove")
            if names
        ),
        st.tuples(st.just("forget"), st.just(0), st.just(0)),
        st.tuples(st.just("chunk"), st.sampled_from(chunks), st.just(0)),
    )


SHARE = float(os.environ.get("RAMOLE_SCHEDULES", "0.12"))
"""Of the schedules that a property is shown with when its mechanism changes: RAMOLE_SCHEDULES=1."""


def examples(most: int) -> settings:
    return settings(
        max_examples=max(1, round(most * SHARE)),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


class Pair:
    """An engine where everybody runs alone, and one where all meet."""

    def __init__(
        self, jobs: Sequence[Job], roomy: TinyEngine, narrow: TinyEngine, ranks: Mapping[str, int]
    ):
        self.jobs, self.roomy, self.narrow, self.ranks = jobs, roomy, narrow, ranks
        roomy.engine._runner.replays = False  # what is replayed is held against what is not
        self._alone: dict[tuple, Heard] = {}

    def alone(self, job: int, version: Versions) -> Heard:
        """What comes of a job that nobody is beside or was before."""
        key = job, tuple(version[name] for name in self.jobs[job].named)
        if key not in self._alone:
            self.roomy.engine.forget_prefixes()
            state = self.submit(self.roomy, job, version)
            self.roomy.finish()
            self._alone[key] = self.roomy.heard.pop(state)
            assert self._alone[key].answer
        return self._alone[key]

    def submit(
        self, tiny: TinyEngine, job: int, version: Versions, *, given: Sequence[int] = ()
    ) -> RequestState:
        one = self.jobs[job]

        def contents(names):
            return [(tiny.content(name, version[name]), self.ranks[name]) for name in names]

        without = [
            (off.adapter and tiny.content(off.adapter, version[off.adapter]), *off[1:])
            for off in read_without(one.request.without)
        ]
        weights = one.request.later_weights or {}
        later = {tiny.content(name, version[name]): w for name, w in weights.items()} or None
        request = replace(one.request, prefix_ids=given, without=without, later_weights=later)
        earlier = [contents(turn) for turn in one.earlier]
        return tiny.submit(request, contents(one.names), earlier=earlier, session=str(job % 3))

    def play(self, events) -> int:
        """Run a schedule to its end; how many numbers differ from those alone."""
        tiny, version, asked = self.narrow, dict.fromkeys(self.ranks, 0), []
        chunk = tiny.engine.scheduler.sizes
        for what, argument, given in events:
            if what == "ask":
                alone = self.alone(argument, version)
                given = given if self.jobs[argument].has_fixed_start else 0
                given = min(given, len(alone.tokens) - 1)
                state = self.submit(tiny, argument, version, given=alone.tokens[:given])
                asked.append((state, given, alone))
            elif what == "step":
                for _ in range(argument):
                    tiny.engine.step()
            elif what == "cancel" and asked:
                asked[argument % len(asked)][0].cancel()
            elif what == "replace":  # the same name, other weights
                version[sorted(version)[argument]] += 1
            elif what == "remove":  # as the pool does it: files and host cache, at once
                kept = sorted(set(version) - {sorted(version)[argument]})
                tiny.engine.store.keep_only(
                    f"{tiny.content(name, version[name])}_{self.ranks[name]}" for name in kept
                )
            elif what == "forget":
                tiny.engine.forget_prefixes()
            elif what == "chunk":
                tiny.engine.scheduler.sizes = replace(chunk, prefill_chunk=argument)
        tiny.finish()
        tiny.engine.scheduler.sizes = chunk
        return sum(self._different(*one) for one in asked)

    def _different(self, state: RequestState, given: int, alone: Heard) -> int:
        heard = self.narrow.heard.pop(state)
        assert isinstance(heard.end, Generation), heard.end
        assert len(heard.logits) == len(heard.tokens)
        tokens, n = alone.tokens[given:], len(heard.tokens)
        ended = heard.answer.finish_reason != "cancelled"
        assert n == len(tokens) if ended else state.cancelled
        different = int(heard.tokens != tokens[:n])
        trace = alone.answer.trace
        # one that was cancelled may have read nothing
        if ended and trace is not None and (ours := heard.answer.trace) is not None:
            fed = len(ours.tokens) - 1
            for name in ("weights", "contribution", "present"):
                rows = [getattr(one, name)[:fed] for one in (ours, trace)]
                different += int((rows[0] != rows[1]).sum())
        pairs = zip(heard.logits, alone.logits[given:], strict=False)
        return different + sum(int((mine != other).sum()) for mine, other in pairs)
