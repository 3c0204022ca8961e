"""Whether others can change an answer: the model is looked at, and the page says it."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from ramole_core.base.model import load_base
from ramole_core.layers import is_exact
from ui.header import promise, status_html
from ui.model.loading import Status

READY = Status(ready=True, stage="ready", fraction=1.0, error=None)


SIZES = {
    "vocab_size": 7,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
}


def model_of(activation: str = "silu", dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, hidden_act=activation))
    nn.Module.to(model, dtype)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["silu", "gelu_new", "relu", "quick_gelu"])
def test_a_model_whose_layers_have_kernels_is_exact_on_a_cpu(activation, dtype):
    assert is_exact(model_of(activation, dtype))


def test_nf4_is_exact(tiny_nf4, tmp_path):
    base = load_base(str(tiny_nf4), data_dir=tmp_path, device="cpu")
    assert is_exact(base.model)


def test_other_numbers_devices_activations_and_layers_are_not():
    assert not is_exact(model_of(dtype=torch.float16))
    with torch.device("meta"):
        assert not is_exact(model_of())

    class Doubled(nn.Linear):
        """A layer that no kernel knows."""

        def forward(self, input):
            return 2 * super().forward(input)

    model = model_of()
    model.set_submodule("model.layers.1.mlp.up_proj", Doubled(12, 10, bias=False))
    assert not is_exact(model)
    experts = MixtralConfig(**SIZES, num_hidden_layers=1, num_local_experts=3)
    assert not is_exact(MixtralForCausalLM(experts))


def test_the_page_says_what_holds_on_its_device_and_promises_nothing_before():
    loading = Status(ready=False, stage="reading", fraction=0.5, error=None)
    exact, rounded = promise(exact=True), promise(exact=False)
    assert "to the bit" in exact and "within rounding" not in exact
    assert "within rounding" in rounded and "to the bit" not in rounded
    for holds, words in ((True, exact), (False, rounded)):
        assert words in status_html(READY, exact=holds, model="tiny")
        said = status_html(loading, exact=holds, model="tiny")
        assert "reading" in said and words not in said
