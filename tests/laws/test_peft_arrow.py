"""Arrow against PEFT's own: the same prototypes up to their sign, and the same logits.

PEFT takes a prototype from 15 steps of power iteration. Where one unit of an adapter is far louder
than the others that is the singular vector; anywhere else it needs more steps to get there. It also
asks that all adapters have one rank and the same modules, so these do. One of them has a B of zeros
in one module, which gives it no direction there.
"""

from functools import partialmethod

import pytest
import torch
from peft import ArrowConfig, LoraConfig, create_arrow_model, get_peft_model
from peft.tuners.lora.arrow import ArrowLoraLinearLayer

from lab.benchmarks.peers import quiet
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Ask, Sites
from ramole_core.composition.arrow import prototypes
from ramole_core.layers.plain import install
from tests.laws.test_peft_kinds import ALL, add_to_pool, load_base
from tests.support.tiny_methods import adapter_of, plain_of

ALPHAS = {"ant": 5, "bee": 9, "cat": 17}
TOP, TEMPERATURE = 2, 0.4
SILENT = "model.layers.1.mlp.up_proj"
"""Where the first adapter says nothing."""


def write(base, folder, *, alpha, loud, seed):
    """An adapter of rank 6 with random weights, its first unit `loud` times the others."""
    config = LoraConfig(task_type="CAUSAL_LM", r=6, lora_alpha=alpha, target_modules=ALL)
    model = get_peft_model(load_base(base), config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5
            weight.data[0] *= loud
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
            weight.data *= seed > 0 or SILENT not in name
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("loud", "steps"), [(8.0, 15), (1.0, 2_000)])
def test_arrow_gives_what_pefts_gives(tiny_llama, tmp_path, monkeypatch, loud, steps):
    name = "top_right_singular_vec_from_BA"
    search = partialmethod(getattr(ArrowLoraLinearLayer, name), iters=steps)
    monkeypatch.setattr(ArrowLoraLinearLayer, name, search)
    folders = [
        write(tiny_llama, tmp_path / name, alpha=alpha, loud=loud, seed=seed)
        for seed, (name, alpha) in enumerate(ALPHAS.items())
    ]
    arrow = ArrowConfig(top_k=TOP, router_temperature=TEMPERATURE, rng_seed=0)
    with quiet():
        peft = create_arrow_model(load_base(tiny_llama), list(map(str, folders)), arrow).eval()
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = peft(ids).logits

    sizes = read_shapes(tiny_llama)
    sites = Sites(tuple(sizes), sizes)
    pool = {folder.name: add_to_pool(tmp_path, tiny_llama, folder)[1] for folder in folders}
    adapters = [adapter_of(name, loras, sites) for name, loras in pool.items()]
    ours = prototypes(Ask(tuple(adapters), sites, {}))
    for path in sites.paths:
        theirs = peft.get_submodule(f"base_model.model.{path}").lora_arrow["arrow_router"]
        for j, adapter in enumerate(adapters):
            a, p = adapter.loras[path].A.T @ ours[path][j][0], theirs.prototypes[j]
            length = torch.tensor(0.0 if (path, j) == (SILENT, 0) else 1.0)
            for product in (a @ a, p @ p, (a @ p).abs()):
                torch.testing.assert_close(product, length, atol=1e-5, rtol=0)

    model = load_base(tiny_llama)
    installed = install(model, sizes)

    def logits(method, **options):
        mix = plain_of(method, pool, sites, trained={}, options=options)
        with torch.no_grad(), installed.mixer.mixing([mix]):
            return model(ids).logits

    mixed = logits("arrow", top=TOP, temperature=TEMPERATURE)
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=0)
    for other in (logits("mixture"), logits("arrow", top=3), logits("arrow", top=TOP)):
        assert (other - expected).abs().max() > 1e-2
