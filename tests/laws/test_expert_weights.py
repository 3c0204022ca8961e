"""A mixture's weights: views where they are plain, in few bits where they fit, the router never."""

import pytest
import torch

from ramole_core.base.experts import Experts
from ramole_core.base.model import PACKED, dequantised, load_base
from ramole_core.base.packed import PackedLinear
from ramole_core.base.routers import take_apart
from ramole_core.base.shapes import read_shapes
from tests.laws.test_bases import close
from tests.laws.test_expert_parameters import plain_model, save_base
from tests.support.tiny_bases import BASES, TinyBase, save_tiny_base

SIZES = {"hidden_size": 128, "moe_intermediate_size": 64, "head_dim": 32}
E0 = "model.layers.1.mlp.experts.3"
ROUTER = "model.layers.1.mlp.gate.router_logits"


def load(folder, kind: str):
    given = {"device": "cpu", "quantization": kind, "dtype": "float32"}
    return load_base(str(folder), data_dir=folder.with_name("data"), **given)


@pytest.mark.parametrize("kind", ["nf4", "int4"])
def test_experts_are_held_in_few_bits_and_trained_on_the_same_numbers(kind, tmp_path):
    folder = save_tiny_base(TinyBase("rounded", "qwen3_moe", SIZES), tmp_path / "base")
    shapes = read_shapes(folder)
    assert shapes[f"{E0}.gate_up_proj"] == (128, 128) and shapes[f"{E0}.down_proj"] == (64, 128)
    assert shapes[ROUTER] == (128, 4) and f"{E0[:-1]}4.down_proj" not in shapes
    base = load(folder, kind)
    for path in shapes:
        packed = isinstance(base.model.get_submodule(path), PackedLinear)
        assert packed is ("experts" in path or "self_attn" in path)
    plain, ids = dequantised(base), torch.tensor([[5, 7, 9, 11, 200, 3, 77]])
    with torch.inference_mode():
        found = base.model(input_ids=ids, use_cache=False).logits[0]
        said = plain(input_ids=ids, use_cache=False).logits[0]
        own = load(folder, "none").model(input_ids=ids, use_cache=False).logits[0]
    assert close(found, said) and not close(found, own)
    down = base.model.get_submodule(f"{E0}.down_proj")
    assert isinstance(down, PACKED[kind][0])
    assert torch.equal(down.numbers(), plain.get_submodule(f"{E0}.down_proj").weight)


def test_plain_weights_are_views_and_the_sum_does_not_depend_on_others(tmp_path):
    model = plain_model(save_base("mixtral", tmp_path / "base"))
    before = {
        name: tensor.data_ptr() for name, tensor in model.named_parameters() if tensor.ndim == 3
    }
    take_apart(model)
    for name, start in before.items():
        path, _, leaf = name.rpartition(".")
        assert model.get_submodule(f"{path}.0.{leaf}").weight.data_ptr() == start
    experts = model.get_submodule("model.layers.0.mlp.experts").double()
    assert isinstance(experts, Experts)
    x = torch.randn(6, 48, dtype=torch.float64)
    chosen = torch.tensor([[3, 0], [0, 3], [1, 2], [0, 1], [4, 3], [4, 4]])
    weights = torch.rand(6, 2, dtype=torch.float64)
    with torch.inference_mode():
        whole = experts(x, chosen, weights)
        for n in range(6):
            expected = torch.zeros(48, dtype=torch.float64)
            for e, w in zip(chosen[n].tolist(), weights[n], strict=True):
                if e < 4:  # 4 stands for no expert
                    one = experts.each()[e]
                    expected += w * one.down_proj(one.inner(x[n : n + 1], experts.act_fn))[0]
            torch.testing.assert_close(whole[n], expected)
            alone = experts(x[n : n + 1], chosen[n : n + 1], weights[n : n + 1])
            torch.testing.assert_close(alone[0], whole[n])


def test_what_computes_something_else_is_left_alone(tmp_path):
    """Clamped, transposed, with biases: known by what comes out."""
    for family in ("gpt_oss", "aria_text"):
        folder = save_base(family, tmp_path / family)
        assert not any(".experts." in path for path in read_shapes(folder))
    config = BASES["mixtral"].config()
    model = plain_model(save_base("mixtral", tmp_path / "base"))
    whole = model.get_submodule("model.layers.0.mlp.experts")
    plain = type(whole).forward

    class Clamped(type(whole)):
        def forward(self, *args):
            return plain(self, *args).clamp(-20, 20)

    other = Clamped(config)
    model.set_submodule("model.layers.0.mlp.experts", other)
    take_apart(model)
    assert model.get_submodule("model.layers.0.mlp.experts") is other
    assert isinstance(model.get_submodule("model.layers.1.mlp.experts"), Experts)
