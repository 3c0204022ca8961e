"""Our NF4 is bitsandbytes', bit for bit."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from hypothesis import given, settings, strategies as st

from ramole_core.base.packed import round_to_nf4
from ramole_core.kernels.narrow import BOUNDS, narrowed, narrowed_to_grid
from ramole_core.kernels.widen import TABLE


def theirs(weight):
    codes, state = quantize_4bit(weight, quant_type="nf4", blocksize=64)
    return codes.view(len(weight), -1), state.absmax.view(len(weight), -1), state


def check(weight):
    codes, scales = narrowed(weight)
    their_codes, their_scales, state = theirs(weight)
    assert torch.equal(codes, their_codes) and torch.equal(scales, their_scales)
    rounded = dequantize_4bit(codes.view(-1, 1), state)
    assert torch.equal(round_to_nf4(weight).float(), rounded.reshape(weight.shape).float())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**31),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_weight_has_bitsandbytes_code(seed, size, dtype):
    pick = torch.Generator().manual_seed(seed)
    weight = size * torch.randn(3, 192, generator=pick)
    weight[0, :64] = 0  # a block of zeros
    weight[1, 5] = 40 * size  # one that is far larger than its block
    check(weight.to(dtype))


def test_weights_at_and_beside_every_bound_have_bitsandbytes_code():
    at = torch.from_numpy(BOUNDS)
    edges = [at, torch.nextafter(at, at + 1), torch.nextafter(at, at - 1), torch.from_numpy(TABLE)]
    weight = torch.cat([*edges, torch.tensor([1.0, -1.0, -0.0])])[None]
    check(torch.cat([weight, torch.zeros(1, 64)], 1)[:, :64].contiguous())


@pytest.mark.parametrize("round_to_codes", [narrowed, narrowed_to_grid])
def test_what_has_no_whole_blocks_is_refused(round_to_codes):
    with pytest.raises(ValueError, match="no whole blocks of 64"):
        round_to_codes(torch.zeros(2, 96))
    with pytest.raises(ValueError, match="float16"):
        round_to_codes(torch.zeros(2, 64).half())
