"""Whatever happens around a request, its logits are to the bit those it gets alone, as served."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from ramole_core.composition import METHODS
from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.request_state import RequestState
from ramole_core.request import Generation, Request
from tests.tiny_engine import TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1, "elk": 3, "fox": 5}
WORDS = "one two three four five six seven eight nine ten a b c d e f g".split()
PAGES = 18
"""Of the narrow engine's bank: the six adapters have 22."""
KINDS = ("float32", "bfloat16", "nf4")


@dataclass(frozen=True)
class Job:
    """A request and the adapters of its turns."""

    request: Request
    names: tuple[str, ...] = ()
    earlier: tuple[tuple[str, ...], ...] = ()


def ask(words: int, method: str = "ramole", **options) -> Request:
    prompt = " ".join((WORDS * 9)[:words])
    options = {"max_new_tokens": 6, "ignore_eos": True, "trace": False} | options
    return Request(prompt, method=method, **options)


CHAT = (("one two three", "four five"), ("six seven", "eight nine ten a b c"))
JOBS = [
    Job(ask(1, "base")),
    Job(ask(3, "selection"), ("ant",)),
    Job(ask(40, "selection", max_new_tokens=9), ("bee",)),
    Job(ask(2), ("ant", "cat", "dog")),
    Job(ask(25, trace=True), ("bee", "dog")),
    Job(ask(7, temperature=1.0, seed=4), ("elk", "fox")),
    Job(ask(5, "mixture", max_new_tokens=12), ("fox", "ant", "elk")),
    Job(ask(11, "uniform_router", trace=True), ("dog", "fox")),
    Job(ask(30, "random_router", temperature=0.7, top_p=0.8, seed=9), ("bee", "ant")),
    Job(ask(4, "mixture", adapters=("cat", "bee"), weights=(0.2, 1.5)), ("cat", "bee")),
    Job(ask(60, "base", max_new_tokens=2)),
    # several segments
    Job(ask(4, history=CHAT[:1], trace=True), ("bee", "cat"), (("ant", "dog"),)),
    Job(ask(4, history=CHAT, max_new_tokens=9), ("fox",), (("ant", "dog"), ())),
    Job(ask(9, history=CHAT, trace=True), ("ant", "dog"), (("ant", "dog"), ("bee", "elk"))),
    Job(ask(25, trace=True, without=[("bee", 1, None), (None, None, "up_proj")]), ("bee", "dog")),
    Job(ask(25, without=[("dog", None, None, 12), (None, 0, None, 33)]), ("bee", "dog")),
    Job(ask(40, "fusion", without=[("elk", None, "q_proj", 3)]), ("cat", "elk")),
]
JOBS += [
    Job(ask(8 + n, method, trace=True), ("cat", "dog", "ant"))
    for n, method in enumerate(sorted(set(METHODS) - {job.request.method for job in JOBS}))
]
"""Every method of the registry is among them."""
EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, len(JOBS) - 1), st.integers(0, 6)),
    st.tuples(st.just("ask"), st.integers(0, len(JOBS) - 1), st.just(0)),
    st.tuples(st.just("step"), st.integers(1, 5), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("replace"), st.integers(0, len(RANKS) - 1), st.just(0)),
    st.tuples(st.just("forget"), st.just(0), st.just(0)),
    st.tuples(st.just("chunk"), st.sampled_from([1, 3, 16, 300]), st.just(0)),
)


@dataclass
class Bits:
    """What every request was answered, and the logits of each of its tokens."""

    logits: dict[RequestState, list[torch.Tensor]] = field(default_factory=dict)

    def watch(self, monkeypatch) -> None:
        advance = RequestState.advance

        def watched(state, token, logits, eos):
            self.logits.setdefault(state, []).append(logits.clone())
            return advance(state, token, logits, eos)

        monkeypatch.setattr(RequestState, "advance", watched)


class Pair:
    """A roomy engine that runs everybody alone, and a narrow one where all meet."""

    def __init__(self, folder, kind: str, units):
        self.roomy = TinyEngine(folder, kind=kind)
        page, token = self.roomy.engine.bank.page_bytes, self.roomy.engine._kv.token_bytes
        self.narrow = TinyEngine(
            folder,
            EngineSizes(
                max_batch=4,
                max_queue=10_000,
                prefill_chunk=16,
                kv_cache_bytes=14 * 64 * token,
                device_cache_bytes=PAGES * page,
                host_cache_bytes=12 * page,
                units_dir=units,
            ),
            kind=kind,
        )
        self._alone: dict[tuple, tuple[list[int], list[torch.Tensor]]] = {}

    def alone(self, job: int, versions: tuple[int, ...]) -> tuple[list[int], list[torch.Tensor]]:
        """Tokens and logits of a job that nobody is beside or was before."""
        key = job, versions
        if key not in self._alone:
            self.roomy.engine._kv.forget()
            bits = Bits()
            with pytest.MonkeyPatch.context() as patch:
                bits.watch(patch)
                state = submit(self.roomy, job, versions)
                self.roomy.finish()
            heard = self.roomy.heard.pop(state)
            assert isinstance(heard.end, Generation), heard.end
            self._alone[key] = heard.tokens, bits.logits[state]
        return self._alone[key]


def named(job: Job) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*job.names, *(n for turn in job.earlier for n in turn))))


def submit(tiny: TinyEngine, job: int, versions, *, given: list[int] = ()) -> RequestState:
    """Version v of an adapter has other weights than version v - 1."""
    one = JOBS[job]
    version = dict(zip(named(one), versions, strict=True))

    def contents(names):
        return [(f"{name}{version[name]}", RANKS[name]) for name in names]

    without = [
        (off.adapter and f"{off.adapter}{version[off.adapter]}", *off[1:])
        for off in one.request.without
    ]
    request = replace(one.request, prefix_ids=given, without=without)
    earlier = [contents(turn) for turn in one.earlier]
    return tiny.submit(request, contents(one.names), earlier=earlier, session=str(job % 3))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    folder = request.getfixturevalue("tiny_nf4" if request.param == "nf4" else "tiny_llama")
    return Pair(folder, request.param, tmp_path_factory.mktemp("units"))


@pytest.fixture(autouse=True)
def nobody_stays(monkeypatch):
    """Adapters leave the bank as soon as nobody uses them, or the bank is never in doubt."""
    monkeypatch.setattr("ramole_core.layers.bank.SLACK", 2)


def play(pair: Pair, events) -> int:
    """Run a schedule to its end; how many numbers differ from those alone."""
    tiny, version, asked = pair.narrow, dict.fromkeys(RANKS, 0), []
    bits, chunk = Bits(), tiny.engine.scheduler.sizes
    with pytest.MonkeyPatch.context() as patch:
        bits.watch(patch)
        for what, argument, given in events:
            if what == "ask":
                versions = tuple(version[name] for name in named(JOBS[argument]))
                tokens, _ = pair.alone(argument, versions)
                given = given if has_open_start(argument) else 0
                prefix = tokens[: min(given, len(tokens) - 1)]
                state = submit(tiny, argument, versions, given=prefix)
                asked.append((state, argument, versions, len(prefix)))
            elif what == "step":
                for _ in range(argument):
                    tiny.engine.step()
            elif what == "cancel" and asked:
                asked[argument % len(asked)][0].cancel()
            elif what == "replace":  # the same name, other weights
                version[sorted(RANKS)[argument]] += 1
            elif what == "forget":
                tiny.engine._kv.forget()
            elif what == "chunk":
                tiny.engine.scheduler.sizes = replace(chunk, prefill_chunk=argument)
        tiny.finish()
    tiny.engine.scheduler.sizes = chunk
    different = 0
    for state, job, versions, given in asked:
        heard = tiny.heard.pop(state)
        tokens, logits = pair.alone(job, versions)
        assert isinstance(heard.end, Generation), heard.end
        made = bits.logits.get(state, [])
        assert len(made) == len(heard.tokens)
        if heard.end.finish_reason != "cancelled":
            assert len(heard.tokens) == len(tokens) - given
        different += heard.tokens != tokens[given : given + len(heard.tokens)]
        for ours, alone in zip(made, logits[given:], strict=False):
            different += int((ours != alone).sum())
    return different


def has_open_start(job: int) -> bool:
    """Whether what is off does not follow from how much is given."""
    return all(off.start is not None for off in JOBS[job].request.without)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENTS, min_size=4, max_size=24))
def test_no_bit_differs_in_any_schedule(pair, events):
    assert play(pair, events) == 0
    stats = pair.narrow.engine.stats()
    assert stats["kv_bytes"] == 0
    assert not any(slot.pins for slot in pair.narrow.engine.bank.slots)
