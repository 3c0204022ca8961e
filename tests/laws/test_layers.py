"""Mixed layers in real Hugging Face models: installed, used, traced, and taken out again."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from transformers.pytorch_utils import Conv1D

from ramole_core.composition import Lora, Sites
from ramole_core.layers.layout import Group, Layout, find_places
from ramole_core.layers.plain import install
from tests.support.tiny_methods import NAMES, make_trained, plain_of

LLAMA = LlamaConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
GPT2 = GPT2Config(vocab_size=61, n_embd=24, n_layer=2, n_head=4, n_positions=64)


def make_model(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def linears(model):
    """Module path -> (i, o) of every linear inside the decoder blocks."""
    sizes = {}
    for path, module in model.named_modules():
        if isinstance(module, Conv1D):
            sizes[path] = tuple(module.weight.shape)
        elif isinstance(module, nn.Linear) and "lm_head" not in path:
            sizes[path] = (module.in_features, module.out_features)
    return sizes


def make_loras(sizes, r):
    return {p: Lora(A=torch.randn(r, i), B=torch.randn(o, r)) for p, (i, o) in sizes.items()}


def sites_of(sizes):
    return Sites(tuple(sizes), sizes)


def make_mixes(sizes, rows, trained=None):
    """`rows`: one (method, list of adapters) for each request of the batch."""
    sites = sites_of(sizes)
    return [
        plain_of(method, dict(zip(NAMES, adapters, strict=False)), sites, trained=trained or {})
        for method, adapters in rows
    ]


@pytest.fixture(params=[LLAMA, GPT2], ids=["llama", "gpt2"])
def model(request):
    return make_model(request.param)


def test_install_and_remove_leave_the_state_dict_bit_identical(model):
    ids = torch.randint(0, 61, (1, 5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bare = model(ids).logits
    installed = install(model, linears(model))
    torch.testing.assert_close(model(ids).logits, bare, rtol=0, atol=0)
    sizes = {path: s for path, s in linears(model).items() if ".base" in path}
    sizes = {path.removesuffix(".base"): size for path, size in sizes.items()}
    with installed.mixer.mixing(make_mixes(sizes, [("mixture", [make_loras(sizes, 3)])])):
        assert (model(ids).logits - bare).abs().max() > 0.1
    torch.testing.assert_close(model(ids).logits, bare, rtol=0, atol=0)
    installed.remove()
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_mixed_batch_equals_each_request_with_its_own_merged_weights(model):
    """The reference: adapters added into the weights, request by request."""
    sizes, ids = linears(model), torch.randint(0, 61, (4, 5))
    one, two = make_loras(sizes, 3), make_loras(sizes, 5)
    rows = [("selection", [two]), ("base", []), ("mixture", [one, two])]
    shares = [{1: 1.0}, {}, {0: 0.5, 1: 0.5}, {1: 1.0}]  # the first and the last share a mix
    expected = []
    for row, share in enumerate(shares):
        merged = make_model(model.config)
        for path in sizes:
            for adapter, weight in share.items():
                lora = (one, two)[adapter][path]
                delta = weight * lora.B @ lora.A
                layer = merged.get_submodule(path)
                layer.weight += delta.T if isinstance(layer, Conv1D) else delta
        expected.append(merged(ids[row : row + 1]).logits)
    installed = install(model, sizes)
    mixes = make_mixes(sizes, rows)
    with installed.mixer.mixing([*mixes, mixes[0]]):
        torch.testing.assert_close(model(ids).logits, torch.cat(expected), rtol=1e-3, atol=1e-3)


def test_the_trace_has_each_layers_gate_where_it_belongs():
    model = make_model(LLAMA)
    sizes, ids = linears(model), torch.randint(0, 61, (2, 5))
    one, two = make_loras(sizes, 3), make_loras(sizes, 5)
    lacking = "model.layers.1.mlp.up_proj"
    del one[lacking]
    installed = install(model, sizes)
    seen = {}
    for layer in installed.layers.values():
        layer.register_forward_pre_hook(lambda m, args: seen.__setitem__(m.path, args[0]))
    trained = make_trained(sites_of(sizes), rank=4)
    router = trained["_router"].tensors
    rows = [("ramole", [one, two]), ("selection", [two])]
    with installed.mixer.mixing(make_mixes(sizes, rows, trained), trace=True):
        model(ids)
        weights = installed.mixer.weights(2, 5, 2).float()
    assert weights.shape == (2, 5, 2, 7, 2)
    places = installed.mixer.places
    for path, (layer, module) in places.at.items():
        x, A, B = seen[path][0], router[f"{path}.A_r"], router[f"{path}.B_r"]
        if path == lacking:
            expected = torch.tensor([0.0, 1.0]).expand(5, 2)
        else:
            v = torch.stack([x @ m[path].A.T @ m[path].B.T for m in (one, two)], dim=1)
            expected = torch.einsum("ls,lko,os->lk", x @ A.T, v, B).div(2).softmax(-1)
        torch.testing.assert_close(weights[0, :, layer, module], expected, atol=2e-3, rtol=0)
    assert weights[0].std() > 0.05
    assert (weights[1, ..., 0] == 1).all() and not weights[1, ..., 1].any()
    with installed.mixer.mixing(make_mixes(sizes, rows, trained)):
        model(ids)
        assert not installed.mixer.weights(2, 5, 2).any()


def test_places_keep_names_apart():
    places = find_places(linears(make_model(GPT2)))
    assert places.layers == (0, 1)
    assert places.modules == ("c_attn", "attn.c_proj", "c_fc", "mlp.c_proj")
    assert places.at["transformer.h.1.mlp.c_proj"] == (1, 3)


@pytest.mark.parametrize("holes", [False, True])
def test_what_is_in_flat_order_comes_to_its_layer_and_module(holes):
    """Flat order is by groups of layers with one input; a model may lack a module somewhere."""
    shared = tuple((f"model.{n}.v_proj", f"model.{n}.q_proj") for n in range(3))
    single = tuple((f"model.{n}.o_proj",) for n in (range(2) if holes else (2, 0, 1)))
    groups = Group(shared, i=4, o=(5, 6)), Group(single, i=6, o=(4,))
    paths = [f"model.{n}.{m}_proj" for n in range(3) for m in "qvo"]
    layout = Layout(groups, find_places(path for path in paths if not holes or path != paths[-1]))
    flat = torch.arange(1, 1 + 2 * len(layout.flat) * 7).view(2, -1, 7)
    placed = layout.as_trace(flat)
    assert placed.shape == (2, 3, 3, 7)
    for n, path in enumerate(layout.flat):
        layer, module = layout.places.at[path]
        assert torch.equal(placed[:, layer, module], flat[:, n]), path
    assert int((placed == 0).sum()) == holes * 2 * 7


def test_installing_twice_is_refused(model):
    paths = list(linears(model))
    install(model, paths)
    with pytest.raises(ValueError, match="already"):
        install(model, paths)


def test_a_mixed_layer_shows_its_bases_weight(model):
    path = next(iter(linears(model)))
    base = model.get_submodule(path)
    layer = install(model, [path]).layers[path]
    assert layer.weight is base.weight
