"""Families of transformers as base models: each one that is served says what it says by itself."""

import pytest
import torch
from transformers import CONFIG_MAPPING

from tests.support.served_base import NARROW, ServedBase
from tests.support.tiny_bases import BASES, SIZES, TinyBase, save_tiny_base

SHORT, MIDDLE, LONG = "a", "a few words more", "one two three four five six " * 7
"""1, 16 and 196 tokens: the last past every window and every first length."""
EDGE = "one two three four five six seven here"
"""38 tokens: an answer of six crosses the window of 40."""
OTHER = f"{LONG[:-6]}?{LONG[-5:]}"
SERVED = [name for name, row in BASES.items() if row.verdict == "exact"]


def close(found: torch.Tensor, said: torch.Tensor) -> bool:
    """Within rounding, of logits whose spread this is."""
    spread = float((said - said.mean()).square().mean().sqrt())
    return float((found - said).abs().max()) < 5e-4 * spread


def check_base(name: str, folder) -> None:
    row = BASES[name]
    served = ServedBase(save_tiny_base(row, folder))
    exact = served.engine.facts.exact
    assert exact or row.verdict == "rounded"  # on some CPUs its experts are exact too
    prompts = [SHORT, MIDDLE, LONG]
    found, said = served.logits(prompts, "base"), [served.own_logits(text) for text in prompts]
    assert all(close(a, b) for a, b in zip(found, said, strict=True))
    assert not close(served.own_logits(OTHER), said[2]), "one token changes nothing"
    if has_window(row):
        assert len(served.ids(EDGE)) < WINDOW < len(served.ids(EDGE)) + 6
        assert served.answers([EDGE], 6) == [served.generated(EDGE, 6)]
        served.own.config.get_text_config().sliding_window = 512  # masks are made of it
        assert not close(served.own_logits(LONG), said[2]), "the window changes nothing"
        served.own.config.get_text_config().sliding_window = WINDOW
    assert served.answers(prompts, 6) == [served.generated(text, 6) for text in prompts]
    for adapter in ("ant", "bee") if row.verdict == "exact" else NARROW:
        mixed = served.logits([MIDDLE], "selection", [adapter])[0]
        assert close(mixed, served.peft_logits(MIDDLE, adapter)) and not close(mixed, said[1])
    mixed = served.logits([LONG, SHORT], "ramole", ["ant", "bee"])
    with served.mixed(["ant", "bee"]):
        assert close(mixed[0], served.own_logits(LONG)) and not close(mixed[0], said[2])
    other = served.logits([LONG, MIDDLE], "ramole", ["ant", "bee"])
    assert torch.equal(mixed[0], other[0]) or not exact and close(mixed[0], other[0])
    served.engine.close()


WINDOW = SIZES["sliding_window"]


def has_window(row: TinyBase) -> bool:
    text = row.config().get_text_config()
    used = getattr(text, "use_sliding_window", True)
    return bool(used and getattr(text, "sliding_window", None))


def test_a_row_has_layers_of_each_kind_of_its_family():
    """Of attention and of experts, as the usual configuration of the family has them."""
    windows = [name for name, row in BASES.items() if row.verdict != "refused" and has_window(row)]
    assert len(windows) > 30 and {n for n in BASES if "with a window" in n} < set(windows)
    seen = 0
    for name, row in BASES.items():
        if row.verdict == "refused" or name != row.model_type:
            continue
        usual = CONFIG_MAPPING[name]().get_text_config()
        ours = row.config().get_text_config()
        for field in ("layer_types", "mlp_layer_types", "no_rope_layers"):
            if every := getattr(usual, field, None):
                assert set(every) <= set(getattr(ours, field)), (name, field)
                seen += 1
    assert seen > 25


@pytest.mark.parametrize("name", SERVED)
def test_a_base_is_served_as_it_is(name, tmp_path):
    check_base(name, tmp_path)
