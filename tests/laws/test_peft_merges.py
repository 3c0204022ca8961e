"""TIES and DARE against PEFT's own `add_weighted_adapter`, of A's and B's apart and of products.

PEFT takes the SVD of the merged product; a product is the same whichever way it is split. It asks
for one rank where A's and B's are merged apart, and elects signs before a scale is applied, so all
adapters have one scale there. Its random entries are replaced by ours.
"""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils

from ramole_core.base.shapes import read_shapes
from ramole_core.composition import METHODS, Ask, Sites, decide
from ramole_core.methods import complete_options
from tests.laws.test_peft_kinds import ALL, add_to_pool, load_base
from tests.support.tiny_methods import adapter_of, kept_by_draw

SCALE = 2
RANKS = {"ant": 5, "bee": 3, "cat": 6}
SILENT = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "products"])
def merged(request, tiny_llama, tmp_path_factory):
    """PEFT's model with three adapters, ours by name, and whether products are merged."""
    root = tmp_path_factory.mktemp("merges")
    sizes = read_shapes(tiny_llama)
    model, pool = None, {}
    for seed, (name, r) in enumerate(RANKS.items()):
        r = r if request.param else 5
        config = LoraConfig(
            task_type="CAUSAL_LM", r=r, lora_alpha=SCALE * r, target_modules=ALL, lora_dropout=0.0
        )
        if model is None:
            model = get_peft_model(load_base(tiny_llama), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        pick = torch.Generator().manual_seed(seed)
        for path, weight in model.named_parameters():
            if f".{name}." in path:
                weight.data = torch.randn(weight.shape, generator=pick) * 0.2
                weight.data *= seed > 0 or SILENT not in path
        model.save_pretrained(root, selected_adapters=[name])
        pool[name] = add_to_pool(tmp_path_factory.mktemp(name), tiny_llama, root / name)[1]
    return model, pool, Sites(tuple(sizes), sizes), request.param


CASES = [
    ("ties", {"density": 0.3}, "ties", 0.3),
    ("ties", {"density": 0.9}, "ties", 0.9),
    ("dare", {"drop": 0.6, "scale": 3.0}, "dare_linear", 0.4),
    ("dare", {"drop": 0.6, "signs": True}, "dare_ties", 0.4),
]
"""Ours with its options, and PEFT's with its density; DARE's weights are 1/k here, 1 there."""


@pytest.mark.parametrize(("name", "options", "theirs", "density"), CASES)
def test_the_merge_is_pefts(merged, monkeypatch, name, options, theirs, density):
    model, pool, sites, products = merged
    every = [lora for loras in pool.values() for lora in loras.values()]

    def random_pruning(tensor, density, rescale):
        for lora in every:
            halves = {"A": lora.A, "B": lora.B / SCALE, "BA": lora.B @ lora.A}
            for half, value in halves.items():
                if value.shape == tensor.shape and torch.allclose(value, tensor, atol=1e-6):
                    return tensor * kept_by_draw(lora, half, tensor.shape, 1 - density) / density
        raise AssertionError("PEFT prunes a tensor that nobody has")

    monkeypatch.setattr(merge_utils, "random_pruning", random_pruning)
    adapters = tuple(adapter_of(n, loras, sites) for n, loras in pool.items())
    n = complete_options(name, {**options, "products": products})
    made = decide(METHODS[name], Ask(adapters, sites, n)).merge
    label = f"{theirs} {int(10 * density)}"
    kind = f"{theirs}_svd" if products else theirs
    model.base_model.add_weighted_adapter(list(pool), [1.0] * 3, label, kind, density=density)
    changed = 0
    for path in sites.paths:
        ours = made.make(path, [loras.get(path) for loras in pool.values()])
        module = model.base_model.model.get_submodule(path)
        expected = module.get_delta_weight(label)
        torch.testing.assert_close(ours.B @ ours.A, expected, atol=1e-4, rtol=0)
        changed += float(expected.abs().max()) > 0.05
    assert changed >= len(sites.paths) - 1
