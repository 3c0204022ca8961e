"""Falcon's attention, which calls PyTorch's by itself, through the model's attention function."""

from collections.abc import Callable

from torch import Tensor
from transformers import AttentionInterface, Cache, PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconAttention, apply_rotary_pos_emb

from ramole_core.errors import Unsupported


class ServedFalconAttention(FalconAttention):
    """Falcon's attention layers; keys and values shared by heads are kept once."""

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        layer_past: Cache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_,
    ) -> tuple[Tensor, None]:
        if alibi is not None or position_embeddings is None:
            raise Unsupported("its attention adds a bias to the scores (alibi)")
        heads = self._split_heads(self.query_key_value(hidden_states))  # [b, n, heads, d] each
        q, k, v = (one.transpose(1, 2) for one in heads)
        if self.new_decoder_architecture:  # each key was made as often as heads share it
            k, v = k[:, :: self.num_key_value_groups], v[:, :: self.num_key_value_groups]
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        if layer_past is not None:
            k, v = layer_past.update(k, v, int(self.layer_idx or 0))
        attend: Callable = AttentionInterface()[self.config._attn_implementation]
        out, _ = attend(self, q, k, v, attention_mask, scaling=self.inv_norm_factor)
        return self.dense(out.flatten(2)), None

    @property
    def num_key_value_groups(self) -> int:
        """How many heads share a key, for PyTorch's attention outside of a step."""
        return self.num_heads // int(self.num_kv_heads or 1)


def serve_falcon(model: PreTrainedModel) -> bool:
    """Replace each Falcon attention of a model; return whether there is one."""
    return _turn(model, FalconAttention, ServedFalconAttention)


def leave_falcon(model: PreTrainedModel) -> bool:
    """Restore the model's own attention."""
    return _turn(model, ServedFalconAttention, FalconAttention)


def _turn(model: PreTrainedModel, one: type, other: type) -> bool:
    found = [module for module in model.modules() if type(module) is one]
    for module in found:
        module.__class__ = other
    return bool(found)
