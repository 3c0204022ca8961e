"""A packed product is the layer's own up to rounding, and leaves no trace in the model."""

import pytest
import torch
from torch import nn

from ramole_core.layers import find_layout, install_serving
from ramole_core.layers.served_linear import PackedLinear, fast_product
from tests.test_layers import LLAMA, linears, make_model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, 32, 200])
def test_the_same_product_in_bfloat16(bias, tokens):
    torch.manual_seed(tokens)
    layer = nn.Linear(96, 160, bias=bias).bfloat16()
    product = fast_product(layer)
    if product is None:
        pytest.skip("this build of PyTorch does not pack")
    x = torch.randn(2, tokens, 96).bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(product(x), layer(x), rtol=2**-7, atol=2**-8)


def test_what_cannot_be_packed_is_left_alone():
    assert fast_product(nn.Linear(4, 4)) is None  # float32: exact as it is
    assert fast_product(nn.Identity()) is None
    assert fast_product(type("Quantised", (nn.Linear,), {})(4, 4).bfloat16()) is None


def test_the_vocabularys_layer_is_packed_too_and_comes_back():
    model = make_model(LLAMA).bfloat16()
    before, head = list(model.state_dict()), model.get_output_embeddings()
    ids = torch.randint(0, 61, (2, 5))
    with torch.inference_mode():
        expected = model(ids).logits
        installed, _ = install_serving(model, find_layout(model, linears(model)))
        if fast_product(head) is not None:
            assert isinstance(model.get_output_embeddings(), PackedLinear)
        torch.testing.assert_close(model(ids).logits, expected, rtol=2**-5, atol=2**-5)
    installed.remove()
    assert model.get_output_embeddings() is head
    assert list(model.state_dict()) == before
