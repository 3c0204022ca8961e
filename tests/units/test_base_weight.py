"""Base weights where they lie, and the layers that keep a token's bits: activations and angles."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from transformers import LlamaConfig
from transformers.activations import ACT2CLS, ACT2FN
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.pytorch_utils import Conv1D

from ramole_core.base.kernel_linear import base_weight, kernel_linears
from ramole_core.base.packed import Int4Linear, Int8Linear, Nf4Linear, PackedLinear
from ramole_core.kernels.weight import Input
from ramole_core.layers.batch_invariant_ops import (
    BLOCK,
    NAMES,
    BatchInvariant,
    BatchInvariantRotary,
    by_token,
    invariant_layers,
)
from ramole_core.layers.install import wrap


def packed(kind, i, o, **options):
    torch.manual_seed(0)
    plain = nn.Linear(i, o, **options)
    return kind(plain.weight, plain.bias).eval()


def nf4_layer(i=64, o=48, **options):
    return packed(Nf4Linear, i, o, **options)


def conv():
    layer = Conv1D(41, 37)
    nn.init.normal_(layer.bias)
    return layer


def values_of(layer):
    """[o, i] in float64."""
    if isinstance(layer, PackedLinear):
        return layer.numbers().double()
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).double()


LAYERS = {
    "linear": lambda: nn.Linear(37, 41),
    "without bias": lambda: nn.Linear(130, 7, bias=False),
    "bfloat16": lambda: nn.Linear(37, 41).bfloat16(),
    "conv": conv,
    "nf4": nf4_layer,
    "int8": lambda: packed(Int8Linear, 130, 41),
    "int4": lambda: packed(Int4Linear, 64, 48),
    "nf4 of bfloat16": lambda: nf4_layer(128, 5, bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_input_of_another_width_is_refused(name):
    """A kernel would read what lies behind it."""
    layer = LAYERS[name]()
    weight = base_weight(layer)
    assert weight is not None
    with pytest.raises(ValueError, match=f"{weight.i + 1} numbers a row, {weight.i} were"):
        weight.multiply(Input(torch.zeros(3, weight.i + 1)))


@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_a_layers_weight_is_read_where_it_lies(name):
    layer = LAYERS[name]()
    weight = base_weight(layer)
    assert weight is not None
    W = values_of(layer)
    assert (weight.o, weight.i) == W.shape
    x = torch.randn(9, weight.i, generator=torch.Generator().manual_seed(1))
    wanted = linear(x.double(), W, None if layer.bias is None else layer.bias.double())
    found = weight.multiply(Input(x))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    one = torch.eye(weight.i)  # every weight by itself
    bare = 0 if layer.bias is None else layer.bias.double()
    found = weight.multiply(Input(one)).double() - bare
    torch.testing.assert_close(found.T, W, rtol=1e-6, atol=5e-7)


class Linear(nn.Linear):
    """Might do anything."""


OTHERS = {
    "no weight": nn.Identity,
    "another dtype": lambda: nn.Linear(4, 4).half(),
    "a subclass": lambda: Linear(4, 4),
    "another layer": lambda: nn.Embedding(4, 4),
    "elsewhere": lambda: nn.Linear(4, 4, device="meta"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_have_no_kernel(name):
    assert base_weight(OTHERS[name]()) is None


@torch.inference_mode()
def test_taking_the_kernels_out_leaves_the_layers_as_they_were():
    model = nn.Sequential(nf4_layer(64, 128), nn.SiLU(), nf4_layer(128, 64), nn.Linear(64, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))
    wanted = model(x)
    installed = wrap(model, kernel_linears(model) | invariant_layers(model))
    assert not isinstance(model[0], Nf4Linear)
    torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
    installed.remove()
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor)
    assert torch.equal(model(x), wanted)


# --- activations and angles -----------------------------------------------------------------


class SiLU(nn.Module):
    """Of somebody else's, by the name of torch's."""

    def forward(self, x):
        return x + 1


class Sub(nn.SiLU):
    """Of torch's, but another."""


def is_by_token(layer):
    assert isinstance(layer, BatchInvariant)
    return layer.form.func is by_token


def test_known_activations_have_a_kernel_and_foreign_ones_stay():
    foreign = (SiLU(), Sub(), nn.ReLU())
    known = (nn.SiLU(), nn.GELU(), ACT2FN["gelu_new"], ACT2FN["silu"])
    found = invariant_layers(nn.Sequential(*foreign, *known))
    assert list(found) == [str(len(foreign) + n) for n in range(len(known))]
    assert not any(map(is_by_token, found.values()))
    assert is_by_token(invariant_layers(nn.Sequential(ACT2FN["quick_gelu"]))["0"])


@pytest.mark.parametrize("name", sorted(ACT2CLS))
@torch.inference_mode()
def test_an_activation_that_is_taken_gives_what_it_gave(name):
    base = ACT2FN[name]
    found = invariant_layers(nn.ModuleList([base]))
    for layer in found.values():
        assert is_by_token(layer) != (type(base).__name__ in NAMES)
        x = torch.linspace(-9, 9, 2001)[None]
        torch.testing.assert_close(layer(x), base(x), rtol=1e-5, atol=3e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_angles_are_those_of_whole_blocks(dtype):
    config = LlamaConfig(hidden_size=48, num_attention_heads=4, head_dim=12)
    base = LlamaRotaryEmbedding(config)
    steady = invariant_layers(nn.ModuleDict({"rotary": base}))["rotary"]
    assert isinstance(steady, BatchInvariantRotary)
    x = torch.zeros(1, 1, 48, dtype=dtype)
    blocks = [base(x, torch.arange(n * BLOCK, (n + 1) * BLOCK)[None]) for n in range(4)]
    wanted = [torch.cat([block[part][0] for block in blocks]) for part in (0, 1)]
    cases = (range(60, 70), range(256), range(130, 131), (255, 0, 64, 63, 63, 128, 1))
    for positions in map(list, cases):
        found = steady(x, torch.tensor([positions]))
        for mine, whole in zip(found, wanted, strict=True):
            assert mine.dtype == dtype and torch.equal(mine[0], whole[positions])
        for mine, own in zip(found, base(x, torch.tensor([positions])), strict=True):
            most = 1e-6 if dtype == torch.float32 else 2**-8
            torch.testing.assert_close(mine, own, rtol=0, atol=most)
