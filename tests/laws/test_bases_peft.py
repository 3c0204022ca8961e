"""PEFT's folders for text halves and for Falcon, taken by the pool and served as PEFT computes."""

import pytest

from tests.laws.test_bases import LONG, MIDDLE, close
from tests.laws.test_expert_parameters import (
    ServedPool,
    peft_logits,
    refused,
    save_base,
    write_by_peft,
)

TEXT = {"target_modules": r".*language_model.*\.(q_proj|o_proj|down_proj)"}
FAMILIES = {
    "gemma3": TEXT,
    "mistral3": TEXT,
    "qwen2_vl": TEXT,
    "falcon": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_a_text_half_is_served_as_peft_computes_it(family, tmp_path):
    base = save_base(family, tmp_path / "base")
    folder = write_by_peft(base, tmp_path / "ant", seed=1, **FAMILIES[family])
    served = ServedPool(base, {"ant": folder})
    found = served.logits([LONG, MIDDLE], "selection", ["ant"])
    for logits, text in zip(found, (LONG, MIDDLE), strict=True):
        assert close(logits, peft_logits(served, folder, text))
        assert not close(logits, served.own_logits(text))
    served.engine.close()


def test_an_adapter_of_the_part_that_sees_is_refused(tmp_path):
    base = save_base("gemma3", tmp_path / "base")
    folder = write_by_peft(base, tmp_path / "ant", seed=1, target_modules=["q_proj"])
    assert "'model.vision_tower.encoder.layers.0.self_attn.q_proj'" in refused(base, folder)


@pytest.mark.parametrize("kind", ["all-linear", "parameters"])
@pytest.mark.parametrize("family", ["dots1", "glm4_moe"])
def test_an_adapter_of_a_router_that_computes_in_float32_is_refused(family, kind, tmp_path):
    """Its product is the model's own, which would leave the adapter out without a word."""
    base = save_base(family, tmp_path / "base")
    said = {"all-linear": "all-linear", "parameters": ["q_proj"]}[kind]
    more = {} if kind == "all-linear" else {"target_parameters": ["mlp.gate.weight"]}
    folder = write_by_peft(base, tmp_path / "ant", seed=1, target_modules=said, **more)
    assert "mlp.gate', which this base does not have" in refused(base, folder)
