"""SMEAR reads its prompt: what it reads, served and in training, alone and beside others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ramole_core import Request
from ramole_core.base.model import dequantised
from ramole_core.composition import Lora, Sites, Trained, find_method
from ramole_core.engine.prompt import Turn, encode_prompt
from ramole_core.training.loop import TrainingRun
from ramole_core.training.material import Material
from ramole_core.training.method import train_method
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.recipe import MethodRecipe
from tests.core.test_training_router import SHAPES, TASKS, base as base, loras as loras, recipe  # noqa: F401
from tests.support.tiny_engine import TinyEngine
from tests.support.tiny_training import build_base

POOL = [("ant", 2), ("bee", 7), ("cat", 4)]
NAMES = [name for name, _ in POOL]
PROMPTS = ("one two three", "four", "five six seven eight nine ten what now")


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


def ask(prompt, **options):
    return Request(prompt, method="smear", max_new_tokens=5, ignore_eos=True, **options)


def forget(tiny):
    tiny.engine._beside.means.cache_clear()


def forwards(tiny):
    return tiny.engine.stats()["forwards"]


def naive_means(model, ids):
    """Of transformers' own hidden states, those that enter each block."""
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return {
        f"model.layers.{n}": states[n][0].mean(0) for n in range(model.config.num_hidden_layers)
    }


def normal(mean):
    """The mean as the router reads it."""
    return (mean - mean.mean()) / (mean.var(unbiased=False) + 1e-5).sqrt()


def weights_of(tiny, request, earlier=()):
    """[module, k] of each turn, where it is placed."""
    candidates = tiny.chosen(POOL)
    turns = [Turn(turn, tuple(candidates)) for turn in request.turns[:-1]] if earlier else []
    prepared = tiny.engine.prepare(request, candidates, earlier=turns)
    return [one.placement.decision.weights for one in tiny.engine._maker.segments(prepared).all]


# --- what is read ---------------------------------------------------------------------------------


def test_the_served_mean_is_that_of_what_enters_each_block(tiny):
    model = dequantised(tiny.base).float()
    for prompt in PROMPTS:
        ids = encode_prompt(ask(prompt), tiny.base.tokenizer)
        expected, found = naive_means(model, ids), tiny.engine.mean_inputs(ask(prompt))
        assert set(found) == set(expected) == set(tiny.engine.layout.sites.blocks)
        for path, mean in found.items():
            assert mean.dtype == torch.float32
            torch.testing.assert_close(mean, expected[path], rtol=1e-4, atol=1e-5)


def test_the_weights_are_the_softmax_of_the_router_over_the_normal_mean(tiny):
    (weights,) = weights_of(tiny, ask(PROMPTS[0]))
    tensors, means = tiny.trained["_smear"].tensors, tiny.engine.mean_inputs(ask(PROMPTS[0]))
    order = list(tiny.trained["_smear"].adapters.values())
    rows = [order.index(name) for name in NAMES]
    for path, one in zip(tiny.engine.layout.flat, weights, strict=True):
        block = ".".join(path.split(".")[:3])
        scores = tensors[f"{block}.W"][rows] @ normal(means[block])
        torch.testing.assert_close(one, scores.exp() / scores.exp().sum(), rtol=1e-4, atol=1e-6)
    assert (weights[0] - weights[-1]).abs().max() > 0.01, "each block has its own"


def test_another_prompt_has_other_weights_and_the_same_is_read_once(tiny):
    forget(tiny)
    count = forwards(tiny)
    (first,), (second,) = (weights_of(tiny, ask(prompt)) for prompt in PROMPTS[:2])
    assert (first - second).abs().max() > 0.01
    assert forwards(tiny) == count + 2
    (again,) = weights_of(tiny, ask(PROMPTS[0], without=[("bee", None, None, 1)]))[-1:]
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert forwards(tiny) == count + 2


def test_each_turn_reads_its_own_prompt(tiny):
    chat = ask(PROMPTS[1], history=[(PROMPTS[0], "yes")], system="Be kind.")
    both = weights_of(tiny, chat, earlier=True)
    alone = [weights_of(tiny, ask(p, system="Be kind."))[0] for p in PROMPTS[:2]]
    assert len(both) == 2 and not torch.equal(*both)
    for turn, one in zip(both, alone, strict=True):
        assert torch.equal(turn, one)
    (unkind,) = weights_of(tiny, ask(PROMPTS[1]))
    assert not torch.equal(unkind, both[1]), "the system prompt is read too"


def test_given_weights_need_no_reading_and_nothing_trained(tiny, monkeypatch):
    forget(tiny)
    count, given = forwards(tiny), (0.2, 0.5, -0.1)
    request = ask(PROMPTS[0], adapters=tuple(NAMES), weights=given)
    candidates = tiny.chosen(POOL)
    monkeypatch.setitem(tiny.trained, "_smear", None)
    placement = tiny.engine._placer.prepare(request, candidates)
    fusion = tiny.engine._placer.prepare(replace(request, method="fusion"), candidates)
    assert forwards(tiny) == count
    assert torch.equal(placement.decision.weights, fusion.decision.weights)
    ours, theirs = placement.adapters[0].units, fusion.adapters[0].units
    assert all(torch.equal(*pair) for pair in zip(ours.A, theirs.A, strict=True))


def test_means_and_answers_are_the_same_alone_and_beside_others(tiny):
    """To the bit, also of a prompt that is read again while others run."""
    requests = [ask(prompt) for prompt in PROMPTS]
    forget(tiny)
    together = [tiny.submit(request, POOL) for request in requests]
    tiny.submit(Request("a b", method="ramole", max_new_tokens=9, ignore_eos=True), POOL[:2])
    for _ in range(2):
        tiny.engine.step()
    forget(tiny)
    together.append(tiny.submit(requests[0], POOL))
    beside = [dict(tiny.engine.mean_inputs(request)) for request in reversed(requests)][::-1]
    tiny.finish()
    heard = [tiny.heard.pop(state) for state in together]
    for n, (request, one) in enumerate(zip([*requests, requests[0]], heard, strict=True)):
        forget(tiny)
        tiny.engine.forget_prefixes()
        alone = tiny.submit(request, POOL)
        tiny.finish()
        lone = tiny.heard.pop(alone)
        assert one.tokens == lone.tokens and len(one.tokens) == 5, n
        ours, theirs = one.answer.trace, lone.answer.trace
        np.testing.assert_array_equal(ours.weights, theirs.weights)
        np.testing.assert_array_equal(ours.contribution, theirs.contribution)
        for path, mean in tiny.engine.mean_inputs(request).items():
            assert torch.equal(mean, beside[n % len(PROMPTS)][path])
    assert len({tuple(one.tokens) for one in heard[:3]}) == 3


# --- training -------------------------------------------------------------------------------------


def doubles(tmp_path, loras):
    """A float64 base in which the LoRAs, in float64, are mixed, and W of every block."""
    wide = {
        name: {p: Lora(A=m.A.double(), B=m.B.double()) for p, m in modules.items()}
        for name, modules in loras.items()
    }
    model = MixedModel(build_base(torch.float64, tmp_path), loras=wide, shapes=SHAPES)
    torch.manual_seed(3)
    start = {f"{b}.W": torch.randn(3, d).double() for b, d in model.sites.blocks.items()}
    return model, wide, {name: (0.1 * t).requires_grad_() for name, t in start.items()}


def trained_of(W):
    known = [{"name": name, "checksum": name} for name in ("red", "blue", "loud")]
    return Trained(W, config={"adapters": known})


def logits_of(model, W, rows, prompts):
    names = [("red", "blue", "loud")] * len(rows)
    with model.mixing(find_method("smear"), trained_of(W), names=names, prompts=prompts):
        return model.plain(rows).logits


ROWS = torch.tensor([[2, 4, 6, 5, 9], [7, 3, 8, 8, 2], [2, 4, 6, 10, 11]])
"""Prompts of 3, 2 and 4 tokens, and their answers."""
LENGTHS = (3, 2, 4)


def test_training_mixes_each_row_by_its_own_prompt(tmp_path, loras):  # noqa: F811
    """Each row is that of a base into whose weights its merged LoRA was added."""
    model, wide, W = doubles(tmp_path, loras)
    prompts = [ids[:n].tolist() for ids, n in zip(ROWS, LENGTHS, strict=True)]
    logits = logits_of(model, W, ROWS, prompts).detach()
    model.close()
    for row, prompt in enumerate(prompts):
        plain = build_base(torch.float64, tmp_path / str(row)).model
        means = naive_means(plain, prompt)
        for path, (i, o) in SHAPES.items():
            block = ".".join(path.split(".")[:3])
            p = (W[f"{block}.W"].detach() @ normal(means[block])).softmax(-1)
            A, B = torch.zeros(5, i).double(), torch.zeros(o, 5).double()
            for pj, name in zip(p, ("red", "blue", "loud"), strict=True):
                if path in wide[name]:
                    r = wide[name][path].A.shape[0]
                    A[:r] += pj * wide[name][path].A
                    B[:, :r] += pj * wide[name][path].B
            plain.get_submodule(path).weight.data += B @ A
        expected = plain(ROWS[row : row + 1]).logits[0]
        torch.testing.assert_close(logits[row], expected, rtol=1e-5, atol=1e-5)
    model, _, W = doubles(tmp_path / "again", loras)
    other = logits_of(model, W, ROWS, [*prompts[1:], prompts[0]]).detach()
    model.close()
    assert (other - logits).abs().max() > 1e-3, "the prompts of others give others' weights"


def test_the_gradient_is_that_of_finite_differences(tmp_path, loras):  # noqa: F811
    """Steps are wide, because the model's norms are computed in float32."""
    model, _, W = doubles(tmp_path, loras)
    prompts = [ids[:n].tolist() for ids, n in zip(ROWS, LENGTHS, strict=True)]
    pick = torch.randn(3, 5, model.plain.config.vocab_size).double()

    def loss():
        return (logits_of(model, W, ROWS, prompts) * pick).sum()

    loss().backward()
    for name, tensor in W.items():
        gradient = tensor.grad
        assert gradient is not None
        largest = gradient.abs().flatten().topk(4).indices.tolist()
        for at in (*largest, 5, 40):
            entry, h, sides = tensor.data.view(-1), 1e-2, []
            before = float(entry[at])
            for side in (before + h, before - h):
                entry[at] = side
                sides.append(float(loss().detach()))
            entry[at] = before
            found = (sides[0] - sides[1]) / (2 * h)
            assert found == pytest.approx(float(gradient.view(-1)[at]), rel=2e-3, abs=2e-3), name
        assert abs(float(gradient.view(-1)[largest[0]])) > 1e-2
    model.close()


def test_it_begins_as_fusion_and_learns(base, loras, tmp_path):  # noqa: F811
    learning = MethodRecipe("smear", dropout=0.0, schedule=recipe(30).schedule)
    kept = {name: t.clone() for name, t in base.model.state_dict().items()}
    given = Material(loras, TASKS, base, SHAPES)
    progress = train_method(learning, given, TrainingRun(tmp_path / "s"))
    first, last = progress.dev_losses[0], progress.dev_losses[-1]
    assert first["smear"] != pytest.approx(first["uniform"], abs=1e-4), "fusion is no mixture"
    assert last["smear"] < first["smear"] - 1e-2
    assert all(torch.equal(t, kept[name]) for name, t in base.model.state_dict().items())
    end = load_file(tmp_path / "s" / "smear.safetensors")
    assert set(end) == {"model.layers.0.W", "model.layers.1.W"}
    assert all(t.shape == (3, 24) and t.abs().max() > 1e-3 for t in end.values())


def test_its_start_may_be_drawn():
    sites = Sites(("a.0.q", "a.1.q"), {"a.0.q": (40, 7), "a.1.q": (30, 7)})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        known = [(name, name) for name in NAMES]
        drawn = find_method("smear").begin(sites, known, {"start": 0.5})
    shapes = {name: tuple(tensor.shape) for name, tensor in drawn.items()}
    assert shapes == {"a.0.W": (3, 40), "a.1.W": (3, 30)}
    assert all(0.35 < float(tensor.std()) < 0.65 for tensor in drawn.values())
