"""LLaVA-MoLE: one expert a token and MLP, straight-through; its training; any modality."""

import json
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from typer.testing import CliRunner

from ramole_core import RamoleError, Request
from ramole_core.base.model import dequantised
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Ask, Sites, find_method, parent_of
from ramole_core.composition.llava_mole import (
    begin,
    choose,
    decision_in_training,
)
from ramole_core.layers.plain import install, place
from ramole_core.training import command
from ramole_core.training.loop import TrainingRun
from ramole_core.training.loss import row_losses
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.mole import MoleModel
from ramole_core.training.rows import encode_rows
from tests.support.tiny_engine import TinyEngine
from tests.support.tiny_methods import adapter_of, make_mole
from tests.support.tiny_training import build_base, make_task, method_recipe

TASKS = [make_task(name) for name in ("red", "blue", "loud")]
LAYERS = ("gate_proj", "up_proj", "down_proj")


def recipe(steps=8, **settings):
    return method_recipe("llava_mole", {"rank": 2, "alpha": 6.0, **settings}, steps=steps)


@pytest.fixture
def base(tmp_path):
    return build_base(torch.float32, tmp_path)


def run(base, out, changed=None, command=""):
    given = Material({}, TASKS, base, read_shapes(base.folder))
    return train_method(changed or recipe(), given, TrainingRun(out, command))


# --- the choice -----------------------------------------------------------------------------------


def test_the_value_is_the_choice_and_the_gradient_that_of_p():
    torch.manual_seed(0)
    z = torch.randn(4, 3, requires_grad=True)
    p = z.softmax(-1)
    value, worth = choose(p), torch.randn(4, 3)
    assert torch.equal(value, torch.eye(3)[z.argmax(-1)])
    (grad,) = torch.autograd.grad((value * worth).sum(), z, retain_graph=True)
    (soft,) = torch.autograd.grad((p * worth).sum(), z)
    torch.testing.assert_close(grad, soft)
    assert grad.abs().max() > 0.01
    tied = choose(torch.tensor([[0.4, 0.4, 0.2]]))
    assert tied.tolist() == [[1, 0, 0]]


def test_a_model_without_an_mlp_is_refused():
    with pytest.raises(RamoleError, match="no module called mlp.*choose another base"):
        begin(Sites(("a.0.proj",), {"a.0.proj": (3, 5)}), recipe().settings)


# --- training -------------------------------------------------------------------------------------


def test_experts_routers_and_attention_learn_together(base, tmp_path):
    progress = run(base, tmp_path / "out", recipe(24), command="a command")
    first, last = progress.dev_losses[0], progress.dev_losses[-1]
    assert last["llava_mole"] < 0.7 * first["llava_mole"]
    assert {"red", "blue", "loud"} <= set(last)
    tensors = load_file(tmp_path / "out" / "llava_mole.safetensors")
    config = json.loads((tmp_path / "out" / "llava_mole_config.json").read_text())
    assert config["data"] == ["red", "blue", "loud"] and config["command"] == "a command"
    names = {name.partition("/")[0] for name in tensors}
    assert names == {"expert_0", "expert_1", "expert_2", "attention", "router"}
    assert all("self_attn" in name for name in tensors if name.startswith("attention/"))
    rows = [r for t in TASKS for r in encode_rows(base.tokenizer, t.dev[:3], max_tokens=99)]
    with closing(MoleModel(base, read_shapes(base.folder))) as model:
        start = model.start(recipe(24))
        moved = {name for name in start if not torch.equal(start[name], tensors[name].float())}
        assert {n for n in start if n.startswith("router/") and n.endswith(".W")} <= moved
        with model.trained(tensors):
            served = row_losses(model.plain, rows).mean().item()
    assert served == pytest.approx(last["llava_mole"], abs=3e-2)


def test_the_language_models_loss_reaches_the_router(base):
    rows = encode_rows(base.tokenizer, TASKS[0].train[:5], max_tokens=99)
    with closing(MoleModel(base, read_shapes(base.folder))) as model:
        weights = model.start(recipe())
        with torch.no_grad():
            for name, tensor in weights.items():
                if name.endswith(".B"):
                    tensor += 0.1
        model.loss(weights, recipe(balance=0.0), rows).backward()
        routers = [t for name, t in weights.items() if name.startswith("router/")]
        assert routers and all(t.grad is not None and t.grad.abs().max() > 0 for t in routers)
        plain, more = (model.loss(weights, recipe(balance=b), rows).item() for b in (0.0, 2.0))
        assert 2 / 3 * 0.9 < more - plain <= 2.0


def test_one_expert_is_a_plain_lora(base):
    shapes = read_shapes(base.folder)
    trained = make_mole(Sites(tuple(shapes), shapes), experts=1)
    plain = dequantised(base)
    for path in shapes:
        owner = "attention" if "self_attn" in path else "expert_0"
        A, B = (trained.tensors[f"{owner}/{path}.{letter}"] for letter in "AB")
        plain.get_submodule(path).weight.data += B @ A
    ids = torch.tensor([[3, 5, 2, 7, 4]])
    with closing(MoleModel(base, shapes)) as model, torch.no_grad():
        bare = model.plain(ids).logits
        with model.trained(trained.tensors):
            ours = model.plain(ids).logits
    torch.testing.assert_close(ours, plain(ids).logits, rtol=1e-3, atol=1e-3)
    assert (ours - bare).abs().max() > 0.1


# --- serving --------------------------------------------------------------------------------------


def test_it_brings_its_own_adapters_and_one_can_be_switched_off(tiny_llama):
    tiny = TinyEngine(tiny_llama)
    request = Request("one two", method="llava_mole", max_new_tokens=4, ignore_eos=True)
    without = replace(request, without=[("expert_1", None, None, 0)])
    answers = []
    for one in (request, without):
        state = tiny.submit(one, [])
        tiny.finish()
        answers.append(tiny.heard[state].answer)
    trace, less = answers[0].trace, answers[1].trace
    assert answers[0].adapters == ["expert_0", "expert_1", "expert_2", "attention"]
    weights = torch.from_numpy(trace.weights[:-1].astype("float32"))
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    places = tiny.engine.layout.places
    gate, up, down, query = map(places.modules.index, (*LAYERS, "q_proj"))
    assert (weights[:, :, query].sum(-1) == 1).all() and (weights[:, :, query, 3] == 1).all()
    chosen = weights[:, :, down, :3]
    assert (chosen.sum(-1) == 1).all() and (chosen.sum((0, 1)) > 0).sum() >= 2
    for n in (gate, up):
        assert torch.equal(weights[:, :, n, :3], chosen), "the same expert in gate, up and down"
    assert not less.weights[..., 1].any() and trace.weights[..., 1].any()


# --- any modality ---------------------------------------------------------------------------------


def test_a_block_does_not_know_what_is_image_and_what_is_text():
    """The experts in a tiny vision-language model: tokens of the image go to several of them, in
    training as served."""
    torch.manual_seed(3)
    text = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2,
        image_size=12, patch_size=6, projection_dim=20,
    )  # fmt: skip
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=49, image_seq_length=4
    )
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    shapes = {
        path: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if "language_model.layers" in path and isinstance(module, torch.nn.Linear)
    }
    assert len(shapes) == 14
    sites = Sites(tuple(shapes), shapes)
    trained, said = make_mole(sites, seed=4), {}
    own = find_method("llava_mole").bring((), trained)
    assert own[-1].name == "attention"
    adapters = tuple(adapter_of(one.name, one.load(), sites) for one in own)
    ask = Ask(adapters, sites, {}, None, trained)
    decision = decision_in_training(trained, ask, hook=said.__setitem__)
    mix = place(decision, [adapter.loras for adapter in adapters], sites)
    served = place(find_method("llava_mole").decide(ask), mix.loras, sites)
    read, ids = {}, torch.tensor([[3, 49, 49, 49, 49, 7, 11, 2]])
    image, given = ids[0] == 49, {"input_ids": ids, "pixel_values": torch.randn(1, 3, 12, 12)}
    mlps = sorted({parent_of(path) for path in shapes if "mlp" in path})
    for path in mlps:
        model.get_submodule(path).register_forward_pre_hook(
            lambda module, args, path=path: read.__setitem__(path, args[0][0])
        )
    installed = install(model, shapes)
    with installed.mixer.mixing([mix]):
        logits = model(**given).logits
    for path in mlps:
        z = read[path] @ trained.tensors[f"router/{path}.W"].T + trained.tensors[f"router/{path}.c"]
        torch.testing.assert_close(said[path], z[None].softmax(-1))
        assert len(z[image].argmax(-1).unique()) > 1
    with installed.mixer.mixing([served]):
        torch.testing.assert_close(model(**given).logits, logits)
    installed.remove()
    assert (logits - model(**given).logits).abs().max() > 0.1


def test_the_command_needs_no_adapters(base, tmp_path, monkeypatch):
    for task in TASKS[:2]:
        (tmp_path / "data" / task.name).mkdir(parents=True)
        for part, rows in (("train", task.train), ("dev", task.dev)):
            lines = [json.dumps({"inputs": row.inputs, "targets": row.targets}) for row in rows]
            (tmp_path / "data" / task.name / f"{part}.jsonl").write_text("\n".join(lines))
    variables = {"BASE_MODEL": base.folder, "QUANTIZATION": "none", "DTYPE": "float32"}
    variables |= {"ADAPTERS_DIR": tmp_path / "adapters", "DATA_DIR": tmp_path / "kept"}
    for name, value in {**variables, "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"RAMOLE_{name}", str(value))
    words = ["method", "llava_mole", "--data", str(tmp_path / "data"), "--adapters", "red,blue"]
    words += ["--steps", "2", "--batch-rows", "4", "--set", "experts=2", "--json"]
    done = CliRunner().invoke(command.train_app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["adapters"] == ["red", "blue"] and said["weights_checksum"]
    file = tmp_path / "kept" / "trained" / "_llava_mole" / "llava_mole.safetensors"
    assert {name.partition("/")[0] for name in load_file(file)} == {
        "expert_0", "expert_1", "attention", "router",
    }  # fmt: skip
