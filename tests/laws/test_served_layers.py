"""The served layers against the plain ones: every method, both ways of mixing, any bank."""

from zlib import crc32

import pytest
import torch
from torch.nn.functional import pad

from ramole_core import Request
from ramole_core.composition import METHODS, Candidate, Lora, ModuleRouter, Response, Router
from ramole_core.engine.placement import Placer
from ramole_core.engine.store import UnitStore
from ramole_core.layers import Bank, BatchMix, find_layout, install_serving
from ramole_core.layers.bank_tensors import BankTensors
from ramole_core.layers.plain import install
from ramole_core.layers.traced import CONTRIBUTION, WEIGHT
from tests.laws.test_layers import GPT2, LLAMA, linears, make_model
from tests.support.tiny_methods import (
    NAMES,
    SCORES,
    SHARES,
    SURPRISES,
    made_up_means,
    make_trained,
    plain_of,
)

RANKS = dict(zip(NAMES, (2, 7, 4, 1), strict=True))
ROWS = [
    (method, ["ant", "bee", "cat", "dog"][: 4 - crc32(method.encode()) % 3]) for method in METHODS
]
ROWS += [
    ("ramole", ["bee"]),
    ("similarity", ["dog", "bee"]),
    ("ramole_plus", ["dog", "cat", "bee"]),
    ("random_router", ["cat", "ant"]),
]
OPTIONS = {"ramole_plus": {"own": 0.8}, "similarity": {"temperature": 0.2}}
"""Others than the defaults, so that each can be seen."""


class Loud:
    """Usual responses, made up, in place of everyday inputs."""

    def __init__(self, modules: int):
        self._modules = modules

    def measure(self, units):
        pick = torch.Generator().manual_seed(units.rank)
        usual = torch.rand(self._modules, 2, generator=pick) + torch.tensor([-0.5, 0.5])
        usual[~units.present] = torch.tensor([0.0, 1.0])
        return usual


class World:
    """A model, four adapters of different rank and modules, trained weights, and a bank."""

    def __init__(self, config, *, limit=2**30, lacking=True, dtype=torch.float32):
        self.model = make_model(config).to(dtype)
        self.sizes = linears(self.model)
        self.layout = find_layout(self.model, self.sizes)
        torch.manual_seed(1)
        self.pool = {
            name: {
                path: Lora(A=torch.randn(r, i) * i**-0.5, B=torch.randn(o, r) * 0.7)
                for path, (i, o) in self.sizes.items()
            }
            for name, r in RANKS.items()
        }
        if lacking:
            for path in list(self.sizes)[::2]:
                del self.pool["cat"][path]
        self.trained = make_trained(self.layout.sites, rank=5, seed=3)
        self.bank = Bank(self.layout, device=torch.device("cpu"), dtype=dtype, limit=limit)
        loud = Loud(len(self.layout.flat))
        self.store = UnitStore(
            self.layout, dtype=dtype, limit=limit, folder=None, measure=loud.measure
        )
        self.placer = Placer(
            self.layout,
            bank=self.bank,
            store=self.store,
            weights=lambda method: self.trained.get(method.row.weights),
            means=lambda turn: made_up_means(self.layout.sites),
            dtype=dtype,
        )

    def units(self, name):
        return self.store.get(name, lambda: self.pool[name])

    def candidate(self, name):
        units = self.units(name)
        mean, deviation = units.usual.unbind(-1)
        answer = Response(mean + SURPRISES[name] * deviation, units.usual, units.present)
        return Candidate(name, SCORES[name], name, lambda: self.pool[name], answer, SHARES[name])

    def row(self, method, names):
        """One request's mix, its adapters pinned."""
        request = Request("made up", method=method, options=OPTIONS.get(method))
        placement = self.placer.prepare(request, [self.candidate(name) for name in names])
        return self.placer.pin(placement)

    def plain(self, ids, rows):
        """Logits and weights of the plain, differentiable layers."""
        installed, mixes = install(self.model, self.sizes), self.mixes(rows)
        with installed.mixer.mixing(mixes, trace=True):
            logits = self.model(ids).logits
            weights = installed.mixer.weights(*ids.shape, max(mix.k for mix in mixes))
        installed.remove()
        return logits, weights

    def mixes(self, rows):
        """The decisions in the plain form."""
        usual = {name: self.units(name).usual for name in NAMES}
        return [
            plain_of(
                method,
                {name: self.pool[name] for name in names},
                self.layout.sites,
                trained=self.trained,
                options=OPTIONS.get(method),
                usual=usual,
            )
            for method, names in rows
        ]


@pytest.fixture(scope="module", params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def world(request):
    return World(request.param)


def told(world, ids, mixes, way=None, *, rows=None, fused=None):
    """Logits, and the trace rows [l, 2, layer, module, k] of these rows (unset: all)."""
    installed, serving = install_serving(world.model, world.layout, fused=fused)
    try:
        with torch.inference_mode():
            counts = [ids.shape[1]] * len(mixes)
            batch, traced = BatchMix(world.bank, mixes), range(len(mixes)) if rows is None else rows
            with serving.mixing(batch, counts, trace=traced, way=way) as forward:
                logits = world.model(ids).logits
            assert not forward.late.faults
            return logits, forward.traces()
    finally:
        installed.remove()


def served(world, ids, rows, *, trace=False, way=None):
    """Logits, and with `trace` the weights [b, l, layer, module, k]."""
    logits, traces = told(world, ids, rows, way, rows=None if trace else ())
    if not trace:
        return logits, None
    k = max(one.shape[-1] for one in traces)
    return logits, torch.stack([pad(one[:, WEIGHT], (0, k - one.shape[-1])) for one in traces])


@pytest.mark.parametrize("way", ["rows", "all"])
@pytest.mark.parametrize(
    "rows",
    [ROWS, *([row] for row in ROWS[: len(METHODS)]), ROWS[1:4], [("base", [])] * 2],
    ids=["all", *METHODS, "three", "base twice"],
)
def test_served_layers_give_what_the_plain_ones_give(world, rows, way):
    ids = torch.randint(0, 61, (len(rows), 5))
    expected, gates = world.plain(ids, rows)
    mixes = [world.row(method, names) for method, names in rows]
    logits, weights = served(world, ids, mixes, trace=True, way=way)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert weights.shape[2:] == gates.shape[2:]
    torch.testing.assert_close(weights.float(), gates.float(), rtol=0, atol=1e-3)


def test_contributions_are_the_same_both_ways_and_of_some_rows(world):
    """What they are, by rows, is in `test_segments.py`."""
    ids, found = torch.randint(0, 61, (len(ROWS), 5)), {}
    mixes = [world.row(method, names) for method, names in ROWS]
    for way in ("rows", "all"):
        logits, found[way] = told(world, ids, mixes, way)
        some, half = told(world, ids, mixes, way, rows=range(1, len(ROWS), 2))
        bare, _ = served(world, ids, mixes, way=way)
        assert torch.equal(logits, bare) and torch.equal(some, bare), "a trace changes no bit"
        for one, same in zip(half, found[way][1::2], strict=True):
            torch.testing.assert_close(one, same)
    for (method, names), rows, every in zip(ROWS, found["rows"], found["all"], strict=True):
        torch.testing.assert_close(rows.float(), every.float(), rtol=5e-3, atol=1e-3)
        lengths = rows[:, CONTRIBUTION]
        assert lengths.any() == (method != "base")
        for j, name in enumerate([] if METHODS[method].brings else names[: rows.shape[-1]]):
            for path, (layer, module) in world.layout.places.at.items():
                assert path in world.pool[name] or not lengths[:, layer, module, j].any()


def test_layers_that_read_the_same_input_are_found():
    llama = find_layout(make_model(LLAMA), linears(make_model(LLAMA)))
    names = [[path.rpartition(".")[2] for path in group.paths[0]] for group in llama.groups]
    assert names == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert all(len(group.paths) == LLAMA.num_hidden_layers for group in llama.groups)
    assert sorted(llama.flat) == sorted(linears(make_model(LLAMA)))


def test_pages_move_and_the_answers_do_not(monkeypatch):
    """Adapters come and go around one that stays; holes are closed, where every page is read; its
    numbers stay the same, also by rows."""
    world = World(LLAMA, lacking=False)
    ids = torch.randint(0, 61, (1, 4))
    first = world.row("mixture", ["bee", "dog"])
    kept = world.row("ramole", ["cat", "ant"])
    expected, _ = served(world, ids, [kept])
    before = [list(slot.pages) for slot in kept.slots]
    for slot in first.slots:
        world.bank.release(slot)
    with monkeypatch.context() as patch:
        patch.setattr("ramole_core.layers.bank.IDLE_PAGES", 0)
        patch.setattr(world.bank, "by_rows", False)
        world.bank.tidy()
    assert world.bank.evictions == 2
    assert [list(slot.pages) for slot in kept.slots] != before
    assert world.bank.high == sum(len(slot.pages) for slot in kept.slots)
    logits, _ = served(world, ids, [kept])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_a_full_bank_refuses_until_somebody_leaves():
    world = World(LLAMA)
    world.bank.most = 8
    held = world.bank.acquire("bee", lambda: world.units("bee"))
    assert world.bank.acquire("cat", lambda: world.units("cat")) is None
    assert world.bank.acquire("dog", lambda: world.units("dog")) is not None
    world.bank.release(held)
    assert world.bank.acquire("cat", lambda: world.units("cat")) is not None
    assert {slot.key for slot in world.bank.slots} == {"cat", "dog"}


@pytest.mark.parametrize("method", ["mixture", "ramole", "arrow", "ramole_plus"])
def test_an_adapter_and_its_copy_count_twice_in_both_ways(method):
    """Somebody uploads what the sample pool has: one content under two names."""
    world = World(LLAMA, lacking=False)
    twin = Candidate("twin", 0.2, "ant", lambda: world.pool["ant"], world.candidate("bee").response)
    request = Request("made up", method=method)
    placement = world.placer.prepare(
        request, [world.candidate("ant"), twin, world.candidate("bee")]
    )
    ids, found = torch.randint(0, 61, (1, 5)), {}
    for way in ("rows", "all"):
        mix = world.placer.pin(placement)
        found[way], _ = served(world, ids, [mix], trace=False, way=way)
        world.placer.release(mix)
    torch.testing.assert_close(found["rows"], found["all"], rtol=1e-4, atol=1e-4)
    assert (found["rows"] - world.model(ids).logits).abs().max() > 0.01


def test_what_fails_on_its_way_into_the_bank_holds_nothing(monkeypatch):
    world = World(LLAMA)
    placement = world.placer.prepare(
        Request("made up", method="ramole"), [world.candidate("ant"), world.candidate("bee")]
    )
    write, calls = BankTensors.write, []

    def faulty(self, pages, units):
        calls.append(pages)
        if len(calls) == 2:
            raise MemoryError("no room")
        return write(self, pages, units)

    monkeypatch.setattr(BankTensors, "write", faulty)
    with pytest.raises(MemoryError):
        world.placer.pin(placement)
    assert not any(slot.pins for slot in world.bank.slots)
    held = sum(len(slot.pages) for slot in world.bank.slots)
    assert len(world.bank._free) + held == world.bank.tensors.size, "no page is lost"
    assert world.placer.pin(placement) is not None


def test_a_router_that_does_not_fit_leaves_the_bank_as_it_was():
    world = World(LLAMA)
    good = world.row("ramole", ["ant", "bee"])
    ids = torch.randint(0, 61, (1, 4))
    expected, _ = served(world, ids, [good])
    path = world.layout.flat[-1]
    bad = ModuleRouter(A=torch.zeros(2, 3), B=torch.zeros(5, 2))
    with pytest.raises(RuntimeError):
        world.bank.add_router(Router({path: bad}, 2, "bad"))
    assert len({len(rows[0]) for rows in world.bank.tensors._router_A}) == 1
    again, _ = served(world, ids, [good])
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
