"""Adapters of experts merged into one, written as PEFT writes them: PEFT reads them back."""

import pytest
import torch

from ramole_core.base.shapes import read_shapes
from ramole_core.composition.trained import WeightsFolder
from ramole_core.export.merge import merge_adapters
from ramole_core.export.peft_folder import write_peft
from ramole_core.export.sources import read_sources
from ramole_core.settings import Settings
from tests.laws.test_bases import MIDDLE, close
from tests.laws.test_expert_parameters import (
    KINDS,
    ServedPool,
    peft_logits,
    save_base,
    write_by_peft,
)


@pytest.mark.parametrize("kinds", [("all-linear", "parameters"), ("down alone", "down alone")])
def test_a_merge_of_experts_is_read_by_peft_and_by_the_pool(kinds, tmp_path):
    base = save_base("qwen3_moe", tmp_path / "base")
    given = {
        name: write_by_peft(base, tmp_path / name, seed=n, **KINDS[kind])
        for n, (name, kind) in enumerate(zip(("ant", "bee"), kinds, strict=True))
    }
    (tmp_path / "adapters").mkdir()
    settings = Settings(
        base_model=str(base), adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data"
    )
    shapes = read_shapes(base)
    merged = merge_adapters(
        read_sources([str(path) for path in given.values()], settings=settings, shapes=shapes),
        "mixture",
        shapes=shapes,
        trained=WeightsFolder(settings.adapters_dir),
    )
    assert merged.exact
    folder = tmp_path / "merged"
    write_peft(merged, folder, shapes=shapes, base_name="made up")
    served = ServedPool(base, {**given, "cat": folder})
    found = served.logits([MIDDLE], "mixture", ["ant", "bee"])[0]
    assert close(peft_logits(served, folder, MIDDLE), found)
    assert close(served.logits([MIDDLE], "selection", ["cat"])[0], found)
    assert not close(served.own_logits(MIDDLE), found)
    for path, lora in served.loras["cat"].items():
        torch.testing.assert_close(lora.B @ lora.A, merged.loras[path].B @ merged.loras[path].A)
    served.engine.close()
