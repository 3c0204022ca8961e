"""The engine on a card that is not there (`fake_card.py`): no tensor is left behind, no kernel of
the CPU is chosen, and every logit is the CPU's within rounding."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from ramole_core.base.model import load_base
from ramole_core.composition import METHODS
from ramole_core.engine.engine import Engine, EngineSizes
from ramole_core.engine.gathered_attention import GatheredAttention
from ramole_core.kernels.likeliest import likeliest
from ramole_core.layers import Fused
from tests.conftest import save_tiny_llama
from tests.support.fake_card import CARD, Card, CardTensor, found, graphs_of, move, to_card
from tests.support.schedules import Job, ask
from tests.support.tiny_engine import Heard, TinyEngine

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1, "elk": 3, "fox": 5}
CHAT = (("one two three", "four five"), ("six seven", "eight nine ten a b c"))
EVERY = [
    Job(
        ask(3 + n % 5, name, trace=n % 2 == 0, max_new_tokens=2), ("cat", "dog", "ant")[: 1 + n % 3]
    )
    for n, name in enumerate(METHODS)
]
"""Every method, with and without a trace, k = 1 to 3."""
CHATS = [
    Job(ask(4, history=CHAT[:1], trace=True), ("bee", "cat"), (("ant", "dog"),)),
    Job(ask(4, history=CHAT), ("fox",), (("ant", "dog"), ())),
    Job(ask(25, trace=True, without=[("bee", 1, None), (None, None, "up_proj")]), ("bee", "dog")),
    Job(ask(40, "fusion", without=[("elk", None, "q_proj", 3)]), ("cat", "elk")),
    Job(ask(25, trace=True, later_weights={"dog": 1.4, "bee": 0.2}), ("bee", "dog")),
    Job(ask(7, temperature=1.0, seed=4), ("elk", "fox")),
]
TURNS = [
    Job(ask(5 + n, max_new_tokens=2), pair)
    for n, pair in enumerate(
        [("ant", "bee"), ("cat", "fox"), ("dog", "elk", "ant"), ("bee", "fox"), ("cat", "ant")]
    )
]


class CardEngine(TinyEngine):
    """The tiny engine, of a model that lies on the card; what comes from outside does not."""

    def __init__(self, folder: Path, card: Card | None, sizes: EngineSizes | None = None, **kind):
        """Without a card: on the CPU."""
        self._card, self._folder = card, folder
        super().__init__(folder, sizes, **kind)

    def here(self) -> AbstractContextManager[object]:
        return self._card.here() if self._card else nullcontext()

    def build(self, sizes: EngineSizes | None) -> Engine:
        with self.here():
            if self.base.quantization == "nf4":  # in float32, so that little is rounded away
                with found() if self._card else nullcontext():
                    self.base = load_base(
                        str(self._folder),
                        data_dir=self._folder.with_name(f"{self._folder.name}-data"),
                        device="cuda" if self._card else "cpu",
                        dtype="float32",
                    )
            elif self._card:
                move(self.base.model)
                self.base = replace(self.base, device=CARD)
            return super().build(sizes)

    def submit(self, *args, **options):
        with self.here():
            return super().submit(*args, **options)

    def finish(self, after: Callable[[], object] = lambda: None) -> None:
        with self.here():
            super().finish(after)


def compare(ours: list[Heard], others: list[Heard], *, rounding: float = 1e-3) -> None:
    for mine, theirs in zip(ours, others, strict=True):
        assert mine.tokens == theirs.tokens
        traces = mine.answer.trace, theirs.answer.trace
        assert (traces[0] is None) == (traces[1] is None)
        for name in ("weights", "contribution") if all(traces) else ():
            pair = [getattr(trace, name) for trace in traces]
            np.testing.assert_allclose(*pair, rtol=0.02, atol=0.004)
        for one, same in zip(mine.logits, theirs.logits, strict=True):
            torch.testing.assert_close(one, same, rtol=rounding, atol=rounding)


def play(engine: CardEngine, jobs: Sequence[Job]) -> list[Heard]:
    """What comes of each job, the logits in the CPU's memory."""

    def contents(names: Sequence[str]) -> list[tuple[str, int]]:
        return [(name, RANKS[name]) for name in names]

    states = []
    for job in jobs:
        earlier = [contents(turn) for turn in job.earlier]
        states.append(engine.submit(job.request, contents(job.names), earlier=earlier))
    engine.finish()
    found = [engine.heard.pop(state) for state in states]
    on_card = {isinstance(one, CardTensor) for heard in found for one in heard.logits}
    assert on_card == {engine.base.device == CARD}
    for heard in found:
        heard.logits = [one.held if isinstance(one, CardTensor) else one for one in heard.logits]
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Of two layers: each operation on the card is one of Python's."""
    sizes = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "head_dim": 12}
    return save_tiny_llama(tmp_path_factory.mktemp("small"), **sizes)


@pytest.fixture(scope="module")
def pair(small) -> tuple[CardEngine, CardEngine]:
    """An engine on the CPU and one on the card."""
    sizes = EngineSizes(max_batch=40)
    return CardEngine(small, None, sizes), CardEngine(small, Card(), sizes)


@pytest.mark.parametrize("jobs", [EVERY, CHATS], ids=["methods", "chats"])
def test_answers_are_those_of_the_cpu(pair, jobs):
    cpu, card = (play(engine, jobs) for engine in pair)
    assert len({tuple(heard.tokens) for heard in cpu}) > 2
    compare(card, cpu)
    stats = pair[1].engine.stats()
    assert stats["decode_tokens"] and stats["prefill_tokens"] and not stats["replayed"]
    assert not pair[1].engine.facts.exact and pair[0].engine.facts.exact
    assert pair[1].engine.fused is None, "there is nothing to launch on"


def test_adapters_leave_the_card_and_come_back(pair, small):
    cpu = pair[0]
    page, token = cpu.engine.bank.page_bytes, cpu.engine._kv.token_bytes
    narrow = EngineSizes(
        max_batch=2, prefill_chunk=40, device_cache_bytes=14 * page, kv_cache_bytes=6 * 64 * token
    )
    card = CardEngine(small, Card(), narrow)
    jobs = [*TURNS, *TURNS[:2]]
    answers = play(card, jobs)
    assert card.engine.bank.evictions > 3 and card.engine.bank.loads > len(RANKS)
    compare(answers, play(cpu, jobs))


def test_nf4_is_loaded_on_the_card(tiny_nf4):
    cpu, card = (CardEngine(tiny_nf4, where, kind="nf4") for where in (None, Card()))
    weight = card.base.model.get_submodule("model.layers.0.self_attn.q_proj").weight
    assert weight.dtype == torch.uint8 and weight.device == CARD
    assert {one.device for one in card.base.model.parameters()} == {CARD}
    jobs = [Job(ask(5, max_new_tokens=3), ("ant", "bee")), *CHATS[:1]]
    compare(play(card, jobs), play(cpu, jobs))


def test_what_is_asked_beside_the_steps(pair):
    found = []
    for engine in pair:
        with engine.here():
            prompts = [engine.engine.read(ask(n)) for n in (3, 9)]
            chosen = engine.chosen([("ant", 2), ("bee", 7)])
            told = engine.engine.examine(prompts, [chosen, chosen[:1]])
            prepared = engine.engine.prepare(ask(6, "similarity"), chosen)
            likely = engine.engine.next_tokens([prepared], prepared.prompt.ids, top=3)
            found.append(([one.log_norms for row in told for one in row], likely[0].ids))
    assert len(found[0][0]) == 3 and found[0][1] == found[1][1]
    for cpu, card in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(card, cpu, rtol=1e-3, atol=1e-3)


def test_what_triton_is_given_lies_on_the_card(pair, monkeypatch):
    """It cannot run there; that it is asked, and with what, is seen before it fails."""
    given: list[tuple[int, set[torch.device]]] = []

    def mix_group(*args, **named) -> None:
        tensors = [one for one in tree_leaves((args, named)) if isinstance(one, torch.Tensor)]
        given.append((len(tensors), {one.device for one in tensors}))
        raise RuntimeError("there is nothing to launch on")

    stands_in = SimpleNamespace(mix_group=mix_group)
    monkeypatch.setitem(sys.modules, "ramole_core.layers.triton_mixing", stands_in)
    fused = Fused()
    monkeypatch.setattr(pair[1].engine._runner._serving, "fused", fused)
    methods = ("ramole", "mixture", "mole", "ramole_plus")
    jobs = [Job(ask(3, one, trace=True, max_new_tokens=3), ("ant", "bee")) for one in methods]
    compare(play(pair[1], jobs), play(pair[0], jobs))
    assert given == [(3 + 3 + 4 + 10 + 1, {CARD})], "y, B, products, tables, what is told"
    assert "nothing to launch on" in fused.fault


LONG = [
    Job(
        ask(5 + 19 * n, name, trace=n % 2 == 0, max_new_tokens=8 + 4 * n),
        ("ant", "bee", "cat")[: 1 + n % 3],
    )
    for n, name in enumerate(("ramole", "selection", "ramole_plus", "mixture", "base"))
]
"""Rows that end one after the other, some with a trace, and go over the end of a page."""


@pytest.fixture
def graphed(small):
    """An engine on a card that captures graphs, and all that it captured."""
    card = Card()
    with graphs_of(card) as made:
        yield CardEngine(small, card, EngineSizes(max_batch=40)), made


def test_steps_of_a_batch_that_goes_on_are_one_graph(pair, graphed):
    engine, made = graphed
    answers = play(engine, LONG)
    compare(answers, play(pair[0], LONG))
    weights = answers[2].answer.trace.weights  # of three adapters, mixed by a gate
    assert not np.array_equal(weights[-2], weights[-3]), "each step has its own"
    stats = engine.engine.stats()
    first = len(made)
    assert not engine.engine.graphs.fault and len(LONG) <= first <= 2 * len(LONG)
    assert sum(one.replays for one in made) == stats["replayed"] + first
    assert stats["replayed"] > 8 and stats["forwards"] > stats["replayed"]
    again = play(engine, LONG[:2])
    assert len(made) > first, "a batch that ended is forgotten"
    compare(again, answers[:2])


def test_gates_of_their_own_are_no_graphs(graphed, pair):
    engine, made = graphed
    job = Job(ask(4, "arrow", max_new_tokens=4), ("ant", "bee"))
    compare(play(engine, [job]), play(pair[0], [job]))
    assert not made


def test_adapters_leave_a_card_that_captures(pair, small):
    page = pair[0].engine.bank.page_bytes
    narrow = EngineSizes(max_batch=2, prefill_chunk=40, device_cache_bytes=14 * page)
    card = Card()
    with graphs_of(card) as made:
        engine = CardEngine(small, card, narrow)
        jobs = [replace(one, request=replace(one.request, max_new_tokens=5)) for one in TURNS[:3]]
        compare(play(engine, jobs), play(pair[0], jobs))
    assert engine.engine.bank.evictions > 1 and len(made) > 1 and engine.engine.stats()["replayed"]


def test_a_step_that_cannot_be_captured_runs_as_it_is(graphed, pair, monkeypatch):
    engine, made = graphed
    attend = GatheredAttention.attend

    def waits(self, query, *args, **named):
        assert query.sum().item() == query.sum().item()
        return attend(self, query, *args, **named)

    monkeypatch.setattr(GatheredAttention, "attend", waits)
    jobs = [*LONG[:2], Job(ask(6, trace=True, max_new_tokens=9), ("ant", "bee"))]
    compare(play(engine, jobs), play(pair[0], jobs))
    assert "not permitted when stream is capturing" in engine.engine.graphs.fault
    assert len(made) == 1 and not engine.engine.stats()["replayed"]


def test_a_kernel_for_the_card_is_seen():
    logits = torch.randn(2, 5)
    assert likeliest(logits) == logits.argmax(-1).tolist()
    with Card().here():
        assert likeliest(to_card(logits)) == logits.argmax(-1).tolist()
        with pytest.raises(AssertionError, match="kernel of the CPU"):
            likeliest(logits)
