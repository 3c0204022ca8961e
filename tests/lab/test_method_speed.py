"""What each method costs and needs, on a tiny base."""

import json

import torch
from safetensors.torch import save_file

from lab.benchmarks import method_speed
from ramole_core.base.shapes import read_shapes
from ramole_core.methods import Method, Option
from ramole_core.pool import write_manifest
from tests.conftest import tiny_settings
from tests.core.test_ramole import write_lora


def test_every_method_that_can_answer_has_its_rates(tiny_llama, tmp_path, monkeypatch, capsys):
    write_lora(tmp_path / "pool" / "ant", read_shapes(tiny_llama), rank=2, seed=1)
    write_manifest(tmp_path / "pool" / "ant", name="ant", shapes=read_shapes(tiny_llama))
    settings = tiny_settings(tiny_llama, tmp_path, adapters_dir=tmp_path / "pool")
    given = settings.model_copy
    monkeypatch.setattr(method_speed, "load_settings", lambda **said: given(update=said))
    monkeypatch.setattr(method_speed, "RIVAL", "mixture")  # which needs no weights
    monkeypatch.setattr(method_speed, "LONG", 1)  # the tiny base reads 512 tokens
    out = tmp_path / "method_speed.json"
    method_speed.main(new=3, passes=2, methods="base,mixture,lorahub,ramole", out=out)
    found = json.loads(out.read_text())["methods"]
    assert found["mixture"]["unseen"] and found["mixture"]["trained"] == 0
    rates = found["base"]["tokens_a_second"]
    assert rates.keys() == {"1", "8", "prompt"}
    assert found["base"]["used"] == 0 and "of_ramole" not in found["base"]
    assert all(0 < one["least"] <= one["median"] <= one["most"] for one in rates.values())
    assert found["mixture"]["used"] == 1 and 0 < found["mixture"]["of_ramole"]["8"]["median"]
    assert list(found) == ["base", "mixture", "lorahub"], "the weights of ramole are not there"
    assert capsys.readouterr().err.count("ramole is left out: There are no trained weights") == 1


def test_trained_numbers_are_counted_in_the_file(tmp_path):
    row = Method("gate", "", "", weights="_gate", training=(Option("rank", 1, 1, 2, ""),))
    (tmp_path / "_gate").mkdir()
    tensors = {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "tau": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "_gate" / "gate.safetensors")
    assert method_speed.count_trained(row, tmp_path) == 16
    assert method_speed.count_trained(Method("mixture", "", ""), tmp_path) == 0
