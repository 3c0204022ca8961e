"""Pages of experts: they are there while an adapter in the bank has some, and only then."""

import random

import pytest
import torch

from ramole_core.base.routers import take_apart
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora, Router
from ramole_core.composition.router import ModuleRouter
from ramole_core.layers import Bank, Slot, Units, find_layout, pack_units
from tests.laws.test_expert_parameters import plain_model, save_base

ATTENTION = ("q_proj", "o_proj")
DOWN = ("down_proj", "q_proj")
ALL = ("gate_up_proj", *DOWN)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    base = save_base("mixtral", tmp_path_factory.mktemp("base"))
    model = plain_model(base)
    take_apart(model)
    return find_layout(model, read_shapes(base))


def make_units(layout, names: tuple[str, ...], *, rank: int, seed: int) -> Units:
    pick = torch.Generator().manual_seed(seed)
    loras = {}
    for path, (i, o) in layout.sites.shapes.items():
        if path.rpartition(".")[2] in names and ".experts.2." not in path:
            A, B = torch.randn(rank, i, generator=pick), torch.randn(o, rank, generator=pick)
            loras[path] = Lora(A=A, B=B)
    return pack_units(loras, layout, dtype=torch.float32)


def make_router(layout, names: tuple[str, ...], *, rank: int, seed: int) -> Router:
    pick = torch.Generator().manual_seed(seed)
    modules = {
        path: ModuleRouter(
            A=torch.randn(rank, i, generator=pick), B=torch.randn(o, rank, generator=pick)
        )
        for path, (i, o) in layout.sites.shapes.items()
        if path.rpartition(".")[2] in names
    }
    return Router(modules, rank, f"made up {seed}")


def check_slot(bank: Bank, slot: Slot, units: Units, routers: list[Router]) -> None:
    """Its A, B and gram are what they were when it came."""
    for g, group in enumerate(bank.layout.groups):
        if g in bank.tensors.asleep:
            assert g not in slot.experts and bank.tensors.A[g].shape[1] == 0
            continue
        at = torch.tensor(slot.pages)
        own = units.A[g].shape[1] > 0
        assert torch.equal(
            bank.tensors.A[g][:, at + bank.tensors.s],
            units.A[g] if own else 0 * bank.tensors.A[g][:, at],
        )
        for j, B in enumerate(bank.tensors.B[g]):
            assert torch.equal(B[:, at], units.B[g][j] if own else 0 * B[:, at])
            for router in routers:
                rows = bank.tensors.routers[router.checksum]
                span = slice(rows.start, rows.start + rows.rank)
                for block, paths in enumerate(group.paths):
                    found = bank.tensors.gram[g][block, j, at, span]
                    module = router.modules.get(paths[j])
                    said = torch.zeros_like(found)
                    if module is not None:
                        said = B[block, at] @ module.B * module.B.shape[1] ** -0.5
                    assert torch.allclose(found, said, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_held_stays_as_it_came(layout, seed):
    play = random.Random(seed)
    whole = layout.unit_numbers * 4
    bank = Bank(layout, device=torch.device("cpu"), dtype=torch.float32, limit=9 * whole)
    kinds = (ATTENTION, ATTENTION, DOWN, ALL)
    known = {
        n: make_units(layout, kinds[n % 4], rank=play.randint(1, 4), seed=n) for n in range(12)
    }
    pinned, routers, refused, slept = [], [], 0, 0
    for step in range(60):
        if pinned and play.random() < 0.45:
            bank.release(pinned.pop(play.randrange(len(pinned))))
            bank.tidy()
        elif len(routers) < 3 and play.random() < 0.05:
            router = make_router(layout, kinds[len(routers)], rank=2 + len(routers), seed=step)
            bank.add_router(router)
            routers.append(router)
        else:
            n = play.randrange(12)
            slot = bank.acquire(n, lambda n=n: known[n])
            refused += slot is None
            if slot is not None:
                pinned.append(slot)
        slept += len(bank.tensors.asleep)
        pages = [page for slot in bank.slots for page in slot.pages]
        assert len(set(pages)) == len(pages) <= bank.most
        assert bank.most * bank.page_bytes <= 9 * whole
        for slot in bank.slots:
            check_slot(bank, slot, known[int(str(slot.key))], routers)
    assert slept and refused


def test_adapters_of_the_attention_take_no_room_for_experts(layout):
    whole = layout.unit_numbers * 4
    bank = Bank(layout, device=torch.device("cpu"), dtype=torch.float32, limit=9 * whole)
    narrow = make_units(layout, ATTENTION, rank=3, seed=1)
    wide = make_units(layout, ALL, rank=3, seed=2)
    assert narrow.nbytes < wide.nbytes / 4
    assert bank.most > 36 and bank.room_for([narrow]) == bank.most and bank.room_for([wide]) == 9
    few = bank.acquire("narrow", lambda: narrow)
    before = bank.tensors.nbytes
    many = bank.acquire("wide", lambda: wide)
    assert few and many and bank.most == 9 and bank.tensors.nbytes > before
    bank.release(many)
    last = bank.acquire("more", lambda: make_units(layout, ATTENTION, rank=8, seed=3))
    assert last and bank.most > 36 and [slot.key for slot in bank.slots] == ["narrow", "more"]
    check_slot(bank, few, narrow, [])
