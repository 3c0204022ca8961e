"""An output head in int8: near the full one, as exact as it, and refused where it cannot be."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ramole_core.base.model import load_base
from ramole_core.base.packed import Int8Linear, round_head
from ramole_core.errors import RamoleError
from ramole_core.kernels.narrow import rounded_to_bytes
from ramole_core.settings import load_settings


def test_each_row_is_within_half_a_step_of_its_own(real_base_folder, tmp_path):
    base = load_base(
        str(real_base_folder), data_dir=tmp_path, quantization="none", device="cpu", head="int8"
    )
    head = base.model.get_output_embeddings()
    assert isinstance(head, Int8Linear) and base.head == "int8"
    full = base.model.get_input_embeddings().get_parameter("weight").float()  # tied to the head
    off = (head.weight * head.scales[:, None] - full).abs()
    assert (off <= head.scales[:, None] / 2 * 1.01).all()
    assert (head.weight.abs().amax(1) == 127).all()
    assert base.model.dtype == torch.bfloat16


def test_rows_of_zeros_stay_zeros():
    numbers, scales = rounded_to_bytes(torch.tensor([[0.0, 0.0], [2.0, -1.0]]))
    assert numbers.tolist() == [[0, 0], [127, -64]] and scales.isfinite().all()


def test_the_setting_is_read_and_what_has_no_head_is_refused(monkeypatch, tiny_llama):
    monkeypatch.setenv("RAMOLE_HEAD", "int8")
    assert load_settings().head == "int8"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.lm_head = nn.Linear(4, 4, device="meta")
    with pytest.raises(RamoleError, match="no plain output head on the CPU .*RAMOLE_HEAD=full"):
        round_head("this", model)
