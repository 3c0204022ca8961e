"""`doctor --gpu` without a card: the command itself, with the CPU in the card's place."""

import json
from dataclasses import replace

import pytest
import torch

from ramole_core import Ramole, Settings
from ramole_core.base import model as base_model
from ramole_core.cli import gpu_check, main
from ramole_core.cli.gpu_check import along, check_gpu, compare, show_gpu
from ramole_core.cli.gpu_side import RunSizes, divergence, measure_side
from ramole_core.cli.timed_engine import MixSpec
from tests.support.adapter_files import arrays_of, write_adapter

FEW = {"new_tokens": 5, "together": 4, "prefill": 40, "prompt": 7, "decoded": 4, "repetitions": 2}
SIZES = RunSizes(mix=MixSpec("mixture", 3), rows=(3,), **FEW)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_nf4):
    """A tiny base in NF4, and a pool of four adapters."""
    folder = tmp_path_factory.mktemp("gpu")
    sizes = {"self_attn.q_proj": (64, 128), "mlp.down_proj": (128, 64)}
    shapes = {f"model.layers.1.{path}": size for path, size in sizes.items()}
    for n, name in enumerate(("ant", "bee", "cat", "dog")):
        write_adapter(folder / "made" / name, arrays=arrays_of(seed=n, shapes=shapes))
    places = {"adapters_dir": folder / "none", "data_dir": folder / "data"}
    settings = Settings(base_model=str(tiny_nf4), quantization="nf4", **places)
    with Ramole(settings) as ramole:
        for made in (folder / "made").iterdir():
            ramole.pool.add(made, name=made.name)
    return settings


@pytest.fixture(scope="module")
def report(settings):
    return check_gpu(settings, device="cpu", sizes=SIZES)


def test_the_cpu_beside_itself_can_be_trusted(report, capsys):
    assert report.problems == () and "can be trusted" in report.verdict
    truth, cpu, card, plain = report.sides
    assert torch.equal(card.logits, cpu.logits) and card.tokens == cpu.tokens
    assert not torch.equal(cpu.logits, truth.logits), "bfloat16 rounds"
    assert report.distances["card"] == report.distances["cpu"]
    assert 0 < report.distances["cpu"].mean_kl < report.distances["card, bfloat16"].mean_kl
    assert {"prefill of 40", "decode, 3 at once"} == set(card.rates)
    assert card.steps == "as recorded on the CPU" and card.steps in report.verdict
    assert card.load_seconds > 0 and card.first_token_seconds and truth.rates == {}
    for one in (card.first_token_seconds, *card.rates.values()):
        assert 0 < one.low <= one.median <= one.high
    assert 0 < card.bytes["weights"] < plain.bytes["weights"]
    assert [len(one) for one in card.tokens.values()] == [3, 3, 4]
    facts = json.loads(json.dumps(report.as_json()))
    assert facts["healthy"] and facts["sides"]["card"]["quantization"] == "nf4"
    show_gpu(report)
    assert capsys.readouterr().out.rstrip().endswith(report.verdict)


def test_a_weight_that_is_another_on_the_card_is_told(settings, report, monkeypatch):
    load = base_model.load_base

    def load_altered(*args, **named):
        base = load(*args, **named)
        layer = base.model.get_submodule("model.layers.0.mlp.up_proj")
        layer.get_buffer("scales")[0, 0] *= 40  # one block of 64
        return base

    monkeypatch.setattr(base_model, "load_base", load_altered)
    served = settings.model_copy(update={"device": "cpu", "dtype": "bfloat16"})
    card = measure_side("card", served, SIZES, timed=False)
    truth, cpu, _, plain = report.sides
    altered = compare("The CPU", [truth, cpu, card, plain])
    assert altered.problems and not altered.as_json()["healthy"]
    assert altered.verdict.startswith("Do not serve on The CPU: its next tokens are not the CPU's")
    assert altered.distances["card"].mean_kl > 10 * altered.distances["cpu"].mean_kl


def test_two_ways_to_mix_on_a_card_are_held_against_each_other_by_logits(report):
    truth, cpu, card, plain = report.sides
    usual = report.distances["cpu"].mean_kl
    for apart, good in ((usual, True), (100 * usual, False), (float("nan"), False)):
        found = compare("It", [truth, cpu, replace(card, apart=apart), plain])
        assert (not found.problems) == good
        assert good or "RAMOLE_FUSED_MIXING=false" in found.verdict
    same = torch.randn(3, 7)
    assert float(divergence(same, same).abs().max()) < 1e-12
    assert float(divergence(same, same.flip(-1)).min()) > 0


def test_the_command_ends_with_the_verdict(report, capsys, monkeypatch):
    monkeypatch.setattr(gpu_check, "check_gpu", lambda settings, tell: report)
    assert main(["doctor", "--gpu"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(report.verdict)
    assert main(["doctor", "--gpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == report.verdict


def test_how_far_answers_go_along():
    one = {"alone": [[1, 2, 3, 4], [5, 6]]}
    assert along(one, one) == {"alone": 1.0}
    assert along(one, {"alone": [[1, 2, 9, 4], [5, 6]]}) == {"alone": 4 / 6}
    assert along(one, {"alone": [[1, 2, 3, 4], [9]]}) == {"alone": 4 / 6}
    assert along(one, {"alone": [[1, 2, 3, 4, 7], [5]]}) == {"alone": 5 / 7}
