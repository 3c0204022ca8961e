"""A packed adapter has the same bits on every machine of a kind, however many cores it has."""

import pytest
import torch

from ramole_core.composition import Lora, orthonormal


@pytest.mark.parametrize("rank", [4, 6, 10, 32, 100])
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
