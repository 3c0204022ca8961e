"""The served layers against the plain ones: every method, both ways of mixing, any bank."""

from dataclasses import replace

import pytest
import torch

from ramole_core.composition import METHODS, Known, Lora, random_router
from ramole_core.layers import (
    Bank,
    Line,
    Lines,
    find_layout,
    install,
    install_serving,
    pack_units,
)
from ramole_core.layers.mix import cheapest
from tests.test_layers import GPT2, LLAMA, linears, make_model, make_stacks

RANKS = {"ant": 2, "bee": 7, "cat": 4, "dog": 1}
ROWS = [
    ("ramole", ["ant", "bee", "cat"]),
    ("base", []),
    ("selection", ["dog"]),
    ("mixture", ["bee", "cat", "dog", "ant"]),
    ("fusion", ["ant", "dog"]),
    ("uniform_router", ["cat", "dog"]),
    ("random_router", ["cat", "ant"]),
    ("ramole", ["bee"]),
    ("ramole_plus", ["dog", "cat", "bee"]),
    ("similarity", ["ant", "bee"]),
]
SCORES = {"ant": 0.3, "bee": 0.35, "cat": 0.4, "dog": 0.28}
SURPRISES = {"ant": 0.1, "bee": -0.2, "cat": 0.0, "dog": 0.3}


class World:
    """A model, four adapters of different rank and modules, two routers, and a bank."""

    def __init__(self, config, *, limit=2**30, lacking=True):
        self.model = make_model(config)
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
        self.routers = {
            "trained": random_router(self.sizes, rank=5, seed=3),
            "random": random_router(self.sizes, rank=3, seed=4),
        }
        self.bank = Bank(self.layout, device=torch.device("cpu"), dtype=torch.float32, limit=limit)

    def units(self, name):
        units = pack_units(self.pool[name], self.layout, dtype=torch.float32)
        spread = torch.Generator().manual_seed(RANKS[name])
        usual = torch.rand(len(self.layout.flat), 2, generator=spread) + torch.tensor([-0.5, 0.5])
        return replace(units, usual=usual)

    def told(self, names, path):
        """What a method is told of these adapters at one layer."""
        at = self.layout.flat.index(path)
        return {
            "scores": [SCORES[n] for n in names],
            "surprises": [SURPRISES[n] for n in names],
            "usual": torch.stack([self.units(n).usual[at] for n in names]) if names else None,
        }

    def line(self, method, names):
        """One request's line, its adapters pinned."""
        kind = METHODS[method].router
        gate = kind if kind in (*self.routers, "evidence") else None
        if gate in self.routers and gate not in self.bank.routers:
            self.bank.add_router(gate, self.routers[gate])
        present = torch.stack([self.units(n).present for n in names], 1) if names else None
        if present is None:
            return Line((), torch.zeros(len(self.layout.flat), 0), None)
        scores, surprises = [SCORES[n] for n in names], [SURPRISES[n] for n in names]
        fixed = METHODS[method].fixed(present, None, scores)
        if METHODS[method].merges:
            merged = {
                path: METHODS[method].merge([self.pool[n].get(path) for n in names], None)
                for path in self.layout.flat
            }
            merged = {path: lora for path, lora in merged.items() if lora is not None}
            slot = self.bank.acquire(
                (method, *names), lambda: pack_units(merged, self.layout, dtype=torch.float32)
            )
            return Line((slot,), torch.ones(len(present), 1), None, shown=fixed)
        slots = tuple(self.bank.acquire(n, lambda n=n: self.units(n)) for n in names)
        told = METHODS[method].evidence(Known(len(present), scores, surprises))
        if gate == "evidence":
            gains = (0.8, 1.5)  # larger than the method's own, so that each can be seen
            return Line(slots, fixed, gate, offset=told.offset, gains=gains)
        return Line(slots, fixed, gate)

    def plain(self, ids, rows):
        """Logits and weights of the plain, differentiable layers."""
        installed = install(self.model, self.sizes)
        k = max(len(names) for _, names in rows)
        stacks = make_stacks(
            self.sizes,
            [
                (m, [self.pool[n] for n in names], self.routers.get(METHODS[m].router))
                for m, names in rows
            ],
            k=k,
            told=lambda row, path: self.told(rows[row][1], path),
        )
        for stack in stacks.values():
            if stack.surprise is not None:
                told = torch.tensor([method == "ramole_plus" for method, _ in rows])
                stack.surprise.gains[told] = torch.tensor([0.8, 1.5])
        with installed.mixer.mixing(stacks, trace=True):
            logits = self.model(ids).logits
            weights = installed.mixer.weights(*ids.shape, k)
        installed.remove()
        return logits, weights


@pytest.fixture(params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def world(request):
    return World(request.param)


def served(world, ids, lines, **options):
    installed, serving = install_serving(world.model, world.layout)
    try:
        with torch.inference_mode():
            batch = Lines(world.bank, lines)
            with serving.mixing(batch, ids.shape[1], **options) as forward:
                logits = world.model(ids).logits
            weights = forward.weights(list(range(len(lines)))) if options.get("trace") else None
    finally:
        installed.remove()
    return logits, weights


@pytest.mark.parametrize("way", ["rows", "all", "gathered"])
@pytest.mark.parametrize(
    "rows",
    [ROWS, ROWS[:1], [ROWS[0], ROWS[7]], [ROWS[2], ROWS[3]], [ROWS[1], ROWS[1]], ROWS[5:7]],
    ids=["all", "one", "gated", "fixed", "base", "two kinds"],
)
def test_served_layers_give_what_the_plain_ones_give(world, rows, way):
    ids = torch.randint(0, 61, (len(rows), 5))
    expected, gates = world.plain(ids, rows)
    lines = [world.line(method, names) for method, names in rows]
    logits, weights = served(world, ids, lines, trace=True, way=way)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert weights.shape[2:] == gates.shape[2:]
    torch.testing.assert_close(weights.float(), gates.float(), rtol=0, atol=1e-3)


def test_adapters_with_every_module_share_one_mask():
    world = World(LLAMA, lacking=False)
    ids = torch.randint(0, 61, (2, 4))
    rows = [ROWS[0], ROWS[7]]
    expected, gates = world.plain(ids, rows)
    lines = [world.line(*row) for row in rows]
    assert Lines(world.bank, lines).mask.shape[0] == 1
    for way in ("rows", "all", "gathered"):
        logits, weights = served(world, ids, lines, trace=True, way=way)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(weights.float(), gates.float(), rtol=0, atol=1e-3)


def test_the_way_follows_the_sizes():
    world = World(LLAMA)
    bee = world.line("selection", ["bee"])
    everyone = world.line("mixture", list(RANKS))
    one, all_of_them = Lines(world.bank, [bee]), Lines(world.bank, [everyone])
    assert cheapest(one, 1) == cheapest(all_of_them, 1) == "rows"
    assert cheapest(one, 10_000) == "gathered"  # 7 of 14 pages, far more tokens than a copy costs
    assert cheapest(all_of_them, 10_000) == "all"  # nothing to leave out


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


def test_pages_move_and_the_answers_do_not():
    """Adapters come and go around one that stays; holes are closed; its numbers stay the same."""
    world = World(LLAMA, lacking=False)
    ids = torch.randint(0, 61, (1, 4))
    first = world.line("mixture", ["bee", "dog"])
    kept = world.line("ramole", ["cat", "ant"])
    expected, _ = served(world, ids, [kept])
    before = [list(slot.pages) for slot in kept.slots]
    for slot in first.slots:
        world.bank.release(slot)
    import ramole_core.layers.bank as bank_module

    old, bank_module.SLACK = bank_module.SLACK, 0
    try:
        world.bank.tidy()
    finally:
        bank_module.SLACK = old
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


def test_pages_grow_as_they_are_needed_and_keep_their_content():
    world = World(LLAMA)
    kept = world.line("ramole", ["bee", "cat"])
    ids = torch.randint(0, 61, (1, 4))
    expected, _ = served(world, ids, [kept])
    for n in range(12):
        assert world.bank.acquire(n, lambda: world.units("bee")) is not None
    assert world.bank.high > 32
    logits, _ = served(world, ids, [kept])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
