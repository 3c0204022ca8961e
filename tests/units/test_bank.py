"""The adapter bank: what stays in it, what it reads, and how adapters are packed."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Lora, orthonormal
from ramole_core.engine.layer_inputs import log_responses
from ramole_core.layers import Bank, Units, find_layout, pack_units


@pytest.fixture(scope="module")
def layout(tiny_llama):
    return find_layout(AutoModelForCausalLM.from_pretrained(tiny_llama), read_shapes(tiny_llama))


def make_units(layout, rank: int, *, seed: int, dtype: torch.dtype = torch.float32) -> Units:
    pick = torch.Generator().manual_seed(seed)
    loras = {
        path: Lora(A=torch.randn(rank, i, generator=pick), B=torch.randn(o, rank, generator=pick))
        for path, (i, o) in layout.sites.shapes.items()
    }
    return pack_units(loras, layout, dtype=dtype)


def use(bank: Bank, units: Units, name: str) -> None:
    """A request comes, is answered and leaves."""
    slot = bank.acquire(name, lambda: units)
    assert slot is not None
    bank.release(slot)
    bank.tidy()


@pytest.mark.parametrize("by_rows", [True, False])
def test_who_is_not_used_stays_while_the_pages_cost_nothing(layout, by_rows):
    """By rows 16 adapters of rank 2 have the 32 pages that are there; else 8 of them the 16 that
    idle ones may have. One more and the first has left, and no page was made for it."""
    bank = Bank(layout, device=torch.device("cpu"), dtype=torch.float32, limit=2**30)
    bank.by_rows = by_rows
    made, every = bank.tensors.made, [make_units(layout, 2, seed=n) for n in range(17)]
    for _ in range(3):
        for n in range(16):
            use(bank, every[n], str(n))
    assert bank.loads == (16 if by_rows else 3 * 16)
    assert len(bank.slots) == (16 if by_rows else 8)
    use(bank, every[16], "16")
    assert [slot.key for slot in bank.slots][-1] == "16" and "0" not in map(
        str, (slot.key for slot in bank.slots)
    )
    assert bank.tensors.made == made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_responses_are_those_of_each_input_and_module(layout, dtype):
    """By loops, in float64, of the numbers that the adapter's dtype holds."""
    units = make_units(layout, 3, seed=0, dtype=dtype)
    pick = torch.Generator().manual_seed(1)
    inputs = [torch.randn(len(g.paths), 4, g.i, generator=pick) for g in layout.groups]
    found = log_responses(units, inputs)
    assert found.shape == (4, len(layout.flat))
    for n, path in enumerate(layout.flat):
        g, block, j = layout.address(n)
        assert path == layout.groups[g].paths[block][j]
        for b in range(4):
            x = inputs[g][block, b].to(dtype).double()
            u = units.A[g][block, :, j].double() @ x
            assert found[b, n].item() == pytest.approx(u.norm().log().item(), abs=1e-5)


@pytest.mark.parametrize("rank", [6, 32])
def test_the_number_of_threads_changes_no_bit_of_a_packed_adapter(rank):
    pick = torch.Generator().manual_seed(rank)
    lora = Lora(A=torch.randn(rank, 576, generator=pick), B=torch.randn(1536, rank, generator=pick))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(orthonormal(lora))
    finally:
        torch.set_num_threads(before)
    for one in found[1:]:
        assert torch.equal(one.A, found[0].A) and torch.equal(one.B, found[0].B)
    packed = found[0]
    assert packed.A.dtype == packed.B.dtype == torch.float32
    torch.testing.assert_close(packed.B.T @ packed.B, torch.eye(rank), atol=1e-5, rtol=0)
    torch.testing.assert_close(packed.B @ packed.A, lora.B @ lora.A, atol=2e-4, rtol=1e-4)
