"""Weights in int4: on a grid they are found again, off it they are near; no answer feels others."""

import pytest
import torch

from ramole_core import RamoleError, load_settings
from ramole_core.base.model import dequantised, load_base
from ramole_core.base.packed import Int4Linear, Int8Linear, round_to_int4
from ramole_core.kernels.narrow import narrowed_to_grid
from ramole_core.kernels.widen import GROUP
from tests.support.schedules import ask
from tests.support.tiny_engine import TinyEngine


def weight_of(seed, o=7, i=192):
    return torch.randn(o, i, generator=torch.Generator().manual_seed(seed))


def test_what_lies_on_a_grid_is_found_again():
    pick = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (5, 6, GROUP), generator=pick)
    codes[..., 0], codes[..., 1] = 0, 15
    step = torch.rand(5, 6, 1, generator=pick).bfloat16().float()
    least = -8 * torch.rand(5, 6, 1, generator=pick).bfloat16().float()
    weight = (codes * step + least).flatten(1)
    assert torch.equal(round_to_int4(weight), weight)
    packed, grid = narrowed_to_grid(weight)
    assert torch.equal(packed >> 4, codes.flatten(1)[:, ::2].byte())
    assert torch.equal(packed & 15, codes.flatten(1)[:, 1::2].byte())
    assert torch.equal(grid[..., :1].float(), step) and torch.equal(grid[..., 1:].float(), least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_weight_is_near_and_nearer_than_between_the_extremes(dtype):
    weight = weight_of(1).to(dtype)
    rounded = round_to_int4(weight)
    assert rounded.dtype == dtype
    groups, found = (x.float().unflatten(1, (-1, GROUP)) for x in (weight, rounded))
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (most - least) / 15
    plain = ((groups - least) / step).round() * step + least
    assert ((found - groups).abs() <= 0.8 * step).all()
    assert ((found - groups) ** 2).sum() < ((plain - groups) ** 2).sum()


def test_a_group_of_one_number_keeps_it():
    weight = torch.zeros(2, 64)
    weight[0, GROUP:] = 0.375
    assert torch.equal(round_to_int4(weight), weight)


@pytest.mark.parametrize(
    ("layer", "how"),
    [(Int4Linear, {"kind": "int4"}), (Int8Linear, {"kind": "nf4", "head": "int8"})],
)
def test_beside_others_a_request_gets_what_it_gets_alone(layer, how, tiny_nf4):
    tiny = TinyEngine(tiny_nf4, **how)
    assert any(isinstance(one, layer) for one in tiny.base.model.modules())
    asked = [
        (ask(3 + n, method), [("ant", 2 + n % 3), ("bee", 3)])
        for n, method in enumerate(("selection", "mixture", "ramole_plus") * 4)
    ]
    alone = [tiny.alone(request, named) for request, named in asked]
    assert [heard.tokens for heard in tiny.run(*asked)] == alone


def test_a_model_for_training_has_the_served_numbers(tiny_nf4, tmp_path):
    base = load_base(str(tiny_nf4), data_dir=tmp_path, quantization="int4", device="cpu")
    plain = dequantised(base)
    layers = {p: m for p, m in base.model.named_modules() if isinstance(m, Int4Linear)}
    assert layers
    for path, layer in layers.items():
        assert torch.equal(plain.get_parameter(f"{path}.weight"), layer.numbers().bfloat16())


def test_the_setting_is_read_and_a_gpu_is_refused(monkeypatch, tiny_nf4, tmp_path):
    monkeypatch.setenv("RAMOLE_QUANTIZATION", "int4")
    assert load_settings().quantization == "int4"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RamoleError, match="int4 is held by kernels for a CPU; .*nf4 or none"):
        load_base(str(tiny_nf4), data_dir=tmp_path, quantization="int4")
