"""What the served attention holds a model to: keys and values as written, and known masks."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, masking_utils

from ramole_core.engine.attention import ServedAttention, _attend, window_of
from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.kv import KvCache
from ramole_core.errors import Unsupported
from tests.support.page_fakes import model_of


class Asked(torch.nn.Module):
    """The attention module of a model that is served."""

    def __init__(self, config):
        super().__init__()
        self.config, self.layer_idx, self.is_causal = config, 0, True


@pytest.fixture
def asking():
    """The attention function in a step of one request, its keys and values written."""
    model = LlamaForCausalLM(model_of(2, 4, torch.float32).config)
    attention = ServedAttention(model)
    kv = KvCache(model, limit=2**20)
    step = attention.step = FlatCache(kv, [Span(kv.open(np.zeros((3, 3), np.int64), 3), 0, 3)])
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    step.update(k, v, 0)
    mask = attention.mask(None, device=torch.device("cpu"))

    def ask(key=k, value=v, mask=mask, **options):
        return _attend(Asked(model.config), q, key, value, mask, **options)[0]

    yield ask, step, (k, v)
    attention.remove()


UNKNOWN = {
    "changes keys or values": lambda k, v: {"key": k * 1.0},
    "changes keys or values.": lambda k, v: {"value": v.clone()},
    "takes position_bias": lambda k, v: {"position_bias": torch.zeros(1)},
    "takes is_causal=False": lambda k, v: {"is_causal": False},
    "by a mask of its own": lambda k, v: {"mask": torch.zeros(1, 1, 3, 3)},
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_is_not_known_of_attention_is_refused(reason, asking):
    ask, _, (k, v) = asking
    with pytest.raises(Unsupported, match=reason.rstrip(".")):
        ask(**UNKNOWN[reason](k, v))


def test_keys_are_written_once_and_attended_once(asking):
    ask, step, (k, v) = asking
    with pytest.raises(Unsupported, match="layers 0 attend by code of their own"):
        step.check_attended()
    with pytest.raises(Unsupported, match="layer 0 writes keys and values twice"):
        step.update(k, v, 0)
    assert ask(dropout=0.0, sliding_window=5, position_ids=None, anything=None).isfinite().all()
    step.check_attended()
    with pytest.raises(Unsupported, match="without having written"):
        ask()


def test_a_window_is_read_off_a_masks_function():
    causal, sliding = (masking_utils.causal_mask_function, window(40))
    assert window_of(causal, ()) is None
    assert window_of(sliding, (40,)) == window_of(sliding, (None, 40)) == 40
    both = masking_utils.and_masks(causal, masking_utils.sliding_window_overlay(7))
    assert window_of(both, (None, 7)) == 7
    neither = "neither causal nor a sliding window"
    assert neither in window_of(sliding, (39,)) and neither in window_of(sliding, ())
    assert neither in window_of(masking_utils.bidirectional_mask_function, (40,))
    chunks = masking_utils.chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.long))
    assert neither in window_of(chunks, (8,))
    padded = masking_utils.padding_mask_function(torch.ones(1, 3, dtype=torch.bool))
    assert "depends on more than places" in window_of(padded, (8,))


def window(w):
    return masking_utils.sliding_window_causal_mask_function(w)
