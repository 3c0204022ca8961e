"""The mixing in one launch a group: right in Triton's interpreter, compiled for cards that are not
here, and left for PyTorch's way where it fails."""

import json
from pathlib import Path

import pytest
import torch

from ramole_core.layers import BatchMix, install_serving
from ramole_core.layers.fused import MAX_FUSED, Fused, fused_of
from tests.laws.test_layers import LLAMA
from tests.laws.test_served_layers import World, served
from tests.support.workers import python


def run(program: str, cache: Path) -> dict:
    """What a program of `tests` prints last; Triton is asked how to run when it is imported."""
    variables = {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = python("-W", "ignore", "-m", f"tests.support.{program}", **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    return run("triton_trial", tmp_path_factory.mktemp("triton"))


@pytest.mark.parametrize(("model", "launches"), [("llama", 4), ("gpt2", 4)])
def test_every_method_is_mixed_as_the_plain_layers_do(told, model, launches):
    found = told[model]
    assert found["launched"] == launches and found["changed"] > 0.1
    assert found["logits"] < 1e-4 and found["torch"] < 1e-4
    assert found["gates"] < 1e-3 and found["contributions"] < 1e-3


@pytest.mark.parametrize(("kind", "rounding"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_ranks_absent_modules_and_odd_sizes(told, kind, rounding):
    found = told[kind]
    assert found["changed"] > 1 and found["y"] < rounding
    assert found["alpha"] < 1e-5 and found["length"] < 1e-4


def test_it_compiles_for_cards_that_are_not_here(tmp_path):
    assert min(run("triton_compiles", tmp_path).values()) > 10_000


def test_where_triton_fails_pytorch_mixes():
    """Here there is no card to launch on."""
    world, ids = World(LLAMA), torch.randint(0, 61, (2, 3))
    mixes = [world.row("ramole", ["ant", "bee"]), world.row("mixture", ["cat", "dog"])]
    expected, _ = served(world, ids, mixes, way="all")
    fused = Fused()
    installed, serving = install_serving(world.model, world.layout, fused=fused)
    try:
        with torch.inference_mode():
            batch = BatchMix(world.bank, [mix for mix in mixes if mix])
            assert fused.takes(batch, [1, MAX_FUSED - 1])
            assert not fused.takes(batch, [2, MAX_FUSED - 1])
            with serving.mixing(batch, [3, 3], way="all"):
                logits = world.model(ids).logits
            assert fused.fault and not fused.launched
            assert not fused.takes(batch, [1, 1]), "it is not tried again"
    finally:
        installed.remove()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert (logits - world.model(ids).logits).abs().max() > 0.01


def test_without_a_card_nothing_is_fused():
    assert fused_of(torch.device("cpu")) is None
    assert fused_of(torch.device("cuda")) is None or torch.cuda.is_available()
