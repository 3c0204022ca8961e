"""The choice of a greedy token: PyTorch's own, whatever stands in the row."""

import pytest
import torch

from ramole_core.kernels.likeliest import likeliest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [1, 7, 64, 1003])
def test_the_likeliest_is_pytorchs_own(dtype, columns):
    rows = torch.randn(9, columns, generator=torch.Generator().manual_seed(columns)).to(dtype)
    rows[1] = -1 - rows[1].abs()
    rows[2] = 0
    rows[2, ::2] = -0.0
    rows[3] = -torch.inf
    rows[4, columns // 2] = torch.inf
    rows[5, columns // 3 :] = rows[5].max()
    rows[6, columns // 2 :] = torch.nan
    rows[7, columns // 2] = -torch.tensor(torch.nan)
    assert likeliest(rows) == rows.float().argmax(-1).tolist()
    assert likeliest(rows[:, ::2]) == rows[:, ::2].float().argmax(-1).tolist()
    assert likeliest(rows[:0]) == []
