"""What a base says once it is served is held against its own forward when it loads."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from ramole_core import RamoleError
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.engine import build, load_check, own_forward, reference
from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.build import engine_of, kept_verdict
from ramole_core.engine.load_check import MAX_DIFFERENCE, ROUNDINGS, Verdict, remember
from ramole_core.engine.own_forward import (
    MAX_OPERATIONS,
    MIN_TOKENS,
    run_own,
    share_of_spread,
)
from ramole_core.kernels.norm import Norm
from ramole_core.layers.batch_invariant_ops import BatchInvariantRotary
from ramole_core.layers.served_linear import ServedLinear
from tests.conftest import tiny_settings
from tests.support.tiny_bases import BASES, TinyBase, save_tiny_base


@pytest.fixture
def settings(tiny_llama, tmp_path):
    return tiny_settings(tiny_llama, tmp_path)


def load(settings):
    base = load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device="cpu",
    )
    return engine_of(base, settings, shapes=read_shapes(base.folder), weights=lambda method: None)


def spoil(patch, change, cls=Norm, name="of") -> None:
    """From now on what is served computes `change(usual, x)` there."""
    usual = getattr(cls, name)
    patch.setattr(cls, name, lambda self, x: change(partial(usual, self), x))
    patch.setattr(build, "_code", lambda: "another")


def refusal(settings) -> str:
    with pytest.raises(RamoleError) as refused:
        load(settings)
    said = str(refused.value)
    assert "\n" not in said and "LlamaForCausalLM) is not supported, choose another" in said
    return said


def test_a_verdict_is_kept_of_one_precision_and_one_code(settings, tiny_llama, monkeypatch):
    assert kept_verdict(settings, tiny_llama) is None
    engine = load(settings)
    verdict = kept_verdict(settings, tiny_llama)
    assert verdict == engine.verdict and verdict.exact and verdict.difference < 1e-4
    assert f"{verdict.tokens} tokens differ by" in str(verdict) and "same bits" in str(verdict)
    engine.close()
    file = build.verdict_file(settings, tiny_llama)
    moved = json.dumps({**json.loads(file.read_text()), "exact": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "run_own", lambda *_, **__: pytest.fail("checked again"))
        for text in (file.read_text(), moved):
            file.write_text(text)
            engine = load(settings)
            assert engine.facts.exact == (text != moved)
            engine.close()
    assert kept_verdict(settings.model_copy(update={"dtype": "bfloat16"}), tiny_llama) is None
    file.write_text("{half a")
    assert kept_verdict(settings, tiny_llama) is None
    load(settings).close()
    assert kept_verdict(settings, tiny_llama) == verdict
    monkeypatch.setattr(build, "_code", lambda: "a later version")
    assert kept_verdict(settings, tiny_llama) is None


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json"])
def test_no_verdict_is_kept_of_a_base_that_changed(changed, settings, tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "copy")
    settings = settings.model_copy(update={"base_model": str(folder)})
    verdict = Verdict(1e-5, 100, True, 2e-3)
    remember(build.verdict_file(settings, folder), verdict)
    assert kept_verdict(settings, folder) == verdict
    file = folder / changed
    if changed == "config.json":
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 1e-3}))
    else:
        tensors = load_file(file)
        tensors["model.norm.weight"][3] += 1
        save_file(tensors, file, metadata={"format": "pt"})
    assert kept_verdict(settings, folder) is None


@pytest.mark.parametrize(
    ("weights", "context", "lengths"),
    [
        (10**6, 512, (200, 193)),
        (10**6, 100, (99, 92)),
        (135 * 10**6, 8192, (111, 104)),
        (7 * 10**9, 8192, (20, 13)),
    ],
)
def test_the_check_takes_a_second_at_most_and_of_a_large_base_few_tokens(
    weights, context, lengths, tiny_llama
):
    """Two prompts, each read by itself and side by side: two operations a weight and token."""
    model = LlamaForCausalLM.from_pretrained(tiny_llama)
    found = run_own(model, context=context, weights=weights).prompts
    assert tuple(map(len, found)) == lengths and found[0][:9] != found[1][:9]
    operations = 2 * 4 * weights * lengths[0]
    assert operations <= MAX_OPERATIONS or lengths[0] == MIN_TOKENS


KINDS = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "nf4": {"quantization": "nf4", "dtype": "auto"},
    "int4": {"quantization": "int4", "dtype": "auto"},
}


@pytest.fixture(params=KINDS)
def kind(request, tiny_nf4, tmp_path, monkeypatch):
    """A precision, and the settings of a base in it."""
    monkeypatch.setattr(reference, "PROMPTS", reference.PROMPTS[:1])
    return request.param, tiny_settings(tiny_nf4, tmp_path, **KINDS[request.param])


def test_a_layer_that_computes_something_else_is_named(kind, monkeypatch):
    """A norm that is another in what is served, and only there."""
    engine = load(kind[1])
    most = MAX_DIFFERENCE[getattr(torch, engine.facts.dtype)]
    assert engine.verdict and engine.verdict.difference < most / 5
    engine.close()
    more = 1.05 if kind[0] == "float32" else 1.15
    spoil(monkeypatch, lambda usual, x: usual(x) * more)
    said = refusal(kind[1])
    assert "served and own logits differ by" in said
    assert "from layer 0 (model.layers.0) on" in said


@pytest.fixture(scope="module")
def rough_base(tmp_path_factory):
    """A base that carries the rounding of one layer through sixteen, in bfloat16."""
    folder = tmp_path_factory.mktemp("rough") / "base"
    save_tiny_base(TinyBase("exact", "llama", {"num_hidden_layers": 16}), folder)
    file = folder / "model.safetensors"
    sharper = {"q_proj": 1.5, "k_proj": 1.5, "o_proj": 1.2, "down_proj": 1.2}
    tensors = {
        name: tensor * sharper.get(name.split(".")[-2], 1)
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_model_is_not_refused_for_the_rounding_that_its_own_forward_has(rough_base, tmp_path):
    """Seen of Gemma 3 270M: served and own logits were equally far from those of float32."""
    engine = load(tiny_settings(rough_base, tmp_path, dtype="bfloat16"))
    model = LlamaForCausalLM.from_pretrained(rough_base, dtype=torch.bfloat16)
    own = run_own(model, context=512, weights=10**5)
    assert MAX_DIFFERENCE[torch.bfloat16] < ROUNDINGS * own.rounding
    assert engine.verdict and engine.verdict.difference < ROUNDINGS * own.rounding
    engine.close()


def test_what_is_no_rounding_of_such_a_model_is_refused(rough_base, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda usual, x: usual(x) * 1.5)
    refusal(tiny_settings(rough_base, tmp_path, dtype="bfloat16"))


def test_rounding_is_measured_of_half_precision_alone(tiny_llama):
    for dtype in (torch.float32, torch.bfloat16):
        model = LlamaForCausalLM.from_pretrained(tiny_llama, dtype=dtype)
        found = run_own(model, context=512, weights=10**5)
        if dtype == torch.float32:
            assert found.rounding == 0
        else:
            assert 0 < ROUNDINGS * found.rounding < MAX_DIFFERENCE[dtype]
        assert not [one for m in model.modules() for one in m._forward_hooks.values()]


def test_a_neighbour_that_is_heard_is_refused(kind, monkeypatch):
    """Attention over all tokens of a forward, as some code of others computes it."""
    share = 0.01 if kind[0] == "float32" else 0.2

    def mixed(usual, x):
        return usual(x + share * x.mean(-2, keepdim=True))

    spoil(monkeypatch, mixed, ServedLinear, "forward")
    assert "differ by" in refusal(kind[1])


@pytest.mark.parametrize("served", [None, 7, 4096])
def test_a_window_that_is_not_served_is_refused_however_long_it_is(served, tmp_path, monkeypatch):
    """The prompts have 200 tokens at most, and both forwards a window of half as many."""
    row = TinyBase("exact", "gemma3_text", {"sliding_window": 4096})
    folder = save_tiny_base(row, tmp_path / "base")
    settings, models = tiny_settings(folder, tmp_path), []
    monkeypatch.setattr(build, "run_own", keep(build.run_own, models))
    load(settings).close()
    window = ServedAttention.window
    assert models.pop().config.sliding_window == 4096
    monkeypatch.setattr(
        ServedAttention, "window", lambda self, mask, module: window(self, mask, module) and served
    )
    monkeypatch.setattr(build, "_code", lambda: "another")
    with pytest.raises(RamoleError, match="differ by .* from layer 0 "):
        load(settings)
    assert models.pop().config.sliding_window == 4096


def fails(error: Exception):
    def fail(usual, x):
        raise error

    return fail


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda usual, x: x * torch.nan, "differ by nan"),
        (fails(RuntimeError("no such\nkernel")), "its code fails here (no such kernel)"),
    ],
)
def test_no_numbers_and_code_that_fails_are_refused(settings, monkeypatch, change, sentence):
    spoil(monkeypatch, change)
    assert sentence in refusal(settings)


@pytest.mark.parametrize("error", [MemoryError("full"), OSError("no space")])
def test_no_memory_and_no_disk_are_no_fault_of_an_architecture(settings, monkeypatch, error):
    spoil(monkeypatch, fails(error))
    with pytest.raises(type(error)):
        load(settings)


def test_numbers_that_are_none_are_refused_beside_another_prompt_too(settings, monkeypatch):
    """In the second prompt alone, at one token."""
    usual = load_check._read

    def spoil(*args, **more):
        logits, blocks = usual(*args, **more)
        logits[-1][1] = torch.nan
        return logits, blocks

    monkeypatch.setattr(load_check, "_read", spoil)
    assert "differ by nan" in refusal(settings)


@pytest.mark.parametrize("factor", [1.4, 0.55])
def test_logits_of_another_scale_are_refused_whatever_rounding_does(
    factor, rough_base, tmp_path, monkeypatch
):
    """They differ by 0.4 of their spread, which rounding moves this base's by."""
    own, usual = [], load_check._read

    def scale(*args, **more):
        logits, blocks = usual(*args, **more)
        return [factor * each for each in own[-1].logits], blocks

    def keep_own(*args, **more):
        own.append(run_own(*args, **more))
        return own[-1]

    monkeypatch.setattr(build, "run_own", keep_own)
    monkeypatch.setattr(load_check, "_read", scale)
    said = refusal(tiny_settings(rough_base, tmp_path, dtype="bfloat16"))
    assert f"served logits are {factor:.2g} times its own" in said


def test_rounding_that_is_no_number_widens_no_limit(tiny_llama, monkeypatch):
    monkeypatch.setattr(own_forward, "share_of_spread", lambda *_, **__: float("nan"))
    model = LlamaForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    assert run_own(model, context=512, weights=10**5).rounding == 0


def test_half_of_the_tokens_may_not_be_anything():
    said = torch.randn(4, 50)
    found = said.clone()
    found[0] = torch.randn(50)
    assert share_of_spread(found, said, each=False) == 0 < share_of_spread(found, said, each=True)
    found[1] = torch.randn(50)
    assert share_of_spread(found, said, each=False) > 0.3


def test_a_refused_model_is_given_back(settings, monkeypatch):
    seen = []
    spoil(monkeypatch, lambda usual, x: usual(x) * 2)
    monkeypatch.setattr(build, "run_own", keep(build.run_own, seen))
    refusal(settings)
    (model,) = seen
    assert model.config._attn_implementation == "sdpa"
    assert not [one for one in model.modules() if isinstance(one, ServedLinear)]


def keep(function, seen):
    """The same, with the model noted."""

    def run(model: nn.Module, **said):
        seen.append(model)
        return function(model, **said)

    return run


@pytest.mark.parametrize("long", [False, True])
def test_angles_of_another_length_are_refused(long, tmp_path, monkeypatch):
    """One set of factors on both sides of a longrope's first length."""
    folder = save_tiny_base(BASES["phi3 with longrope"], tmp_path / "base")
    block = BatchInvariantRotary._block

    def wrong(self, x, number, _, *rest):
        return block(self, x, number, long, *rest)

    settings = tiny_settings(folder, tmp_path)
    load(settings).close()
    monkeypatch.setattr(BatchInvariantRotary, "_block", wrong)
    monkeypatch.setattr(build, "_code", lambda: "another")
    with pytest.raises(RamoleError, match="rotary angles of .* differ for requests of 10[02]"):
        load(settings)
