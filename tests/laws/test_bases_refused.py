"""Families whose experts PyTorch takes together, those that are not served, and those not named."""

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from ramole_core import RamoleError
from ramole_core.base.model import load_base
from tests.conftest import save_tiny_tokenizer
from tests.laws.test_bases import check_base
from tests.support.served_base import ServedBase
from tests.support.tiny_bases import BASES, named_types, save_tiny_base

ROUNDED = [name for name, row in BASES.items() if row.verdict == "rounded"]
REFUSED = [name for name, row in BASES.items() if row.verdict == "refused"]


@pytest.mark.parametrize("name", ROUNDED)
def test_a_base_with_experts_is_served_within_rounding(name, tmp_path):
    check_base(name, tmp_path)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")  # of code that is not served
def test_what_is_not_known_is_refused_in_a_sentence(name, tmp_path):
    row = BASES[name]
    save_tiny_base(row, tmp_path)
    with pytest.raises(RamoleError, match=row.reason) as refused:
        ServedBase(tmp_path)
    said = str(refused.value)
    assert "\n" not in said and "choose another" in said or "set RAMOLE_BASE_MODEL" in said


def test_every_family_is_named():
    """A new version of transformers that adds one, or drops it, is looked at."""
    assert len(BASES) >= 60
    known = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    assert named_types() == known  # the two auto classes of `model_class`


def test_a_family_that_needs_what_is_not_here_is_refused_in_a_sentence(tmp_path):
    """Gemma3n's own configuration asks for a package."""
    save_tiny_tokenizer(tmp_path / "base")
    CONFIG_MAPPING["gemma3n"]().save_pretrained(tmp_path / "base")
    with pytest.raises(RamoleError, match="set RAMOLE_BASE_MODEL to another") as refused:
        load_base(str(tmp_path / "base"), data_dir=tmp_path / "data", device="cpu")
    assert "\n" not in str(refused.value)
