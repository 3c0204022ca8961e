"""The attention of a flat forward: every token over its own request's pages, up to itself.

The model runs with its own code; a cache that writes into the pages and an attention function that
reads them take the places of its own while a step runs. That holds for a model that hands each
layer's keys and values to the cache, and then these very tensors, with a mask that was made for it
and nothing else, to the attention function. `_attend` checks this at every call, and raises
Unsupported where it is not so.
"""

import math
from collections.abc import Mapping, Sequence as Many
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ramole_core.base.architecture import text_prefix
from ramole_core.engine.attention_window import Window, window_of
from ramole_core.engine.compiled_attention import CompiledAttention
from ramole_core.engine.falcon_attention import leave_falcon, serve_falcon
from ramole_core.engine.gathered_attention import GatheredAttention, attend_by_scores
from ramole_core.engine.kv import KvCache, Sequence
from ramole_core.errors import Unsupported
from ramole_core.kernels.program import Program


@dataclass(frozen=True)
class Span:
    """Tokens of one request that stand together in a flat forward."""

    sequence: Sequence
    start: int
    """Tokens that are before them."""
    count: int


class FlatCache(Cache):
    """The cache that a model sees while it runs the tokens of many requests, side by side.

    `update` writes their keys and values into the pages of their sequences, and `attend` reads them
    there.
    """

    def __init__(self, kv: KvCache, spans: Many[Span], *, device: torch.device | str = "cpu"):
        super().__init__(layers=[])
        self._memory = kv.memory
        for span in spans:
            assert span.start >= span.sequence.length, "these tokens are in the cache already"
            kv.reach(span.sequence, span.start + span.count)
        self._written: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of the layers that have not attended yet."""
        self._counts = np.array([span.count for span in spans], np.int64)
        self._starts = np.array([span.start for span in spans], np.int64)
        self._tables = [span.sequence.table for span in spans]
        self._most = max((span.sequence.most for span in spans), default=0)
        n = int(self._counts.sum())
        firsts = np.cumsum(self._counts) - self._counts
        places = np.arange(n) + np.repeat(self._starts - firsts, self._counts)
        self.positions = torch.from_numpy(places)[None].to(device)
        """[1, N] the place of each token in its sequence."""
        long = np.array([span.sequence.long for span in spans], bool)
        self.long = torch.from_numpy(np.repeat(long, self._counts))[None] if long.any() else None
        """[1, N] which tokens are of requests past the length that a rotary embedding was first
        trained for (longrope); None: no token is."""
        self.mask = torch.ones(1, n, dtype=torch.bool, device=device)
        """What the model is given: no token is padding. It comes back where masks are made."""
        self._way: CompiledAttention | GatheredAttention | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._memory.layer(layer_idx, key_states, value_states)
        if self._way is None:
            way = CompiledAttention if CompiledAttention.knows(keys) else GatheredAttention
            self._way = way(self._starts, self._counts, self._tables, like=keys)
        if layer_idx in self._written:
            raise Unsupported(f"layer {layer_idx} writes keys and values twice")
        self._written[layer_idx] = key_states, value_states
        self._way.write(keys, values, key_states, value_states)
        return key_states, value_states

    def check_written(self, layer: int, key: Tensor, value: Tensor) -> None:
        """A layer attends over these; raises Unsupported where it wrote others, or none."""
        written = self._written.pop(layer, None)
        if written is None:
            raise Unsupported(f"layer {layer} attends without having written keys and values")
        if written[0] is not key or written[1] is not value:
            raise Unsupported(f"layer {layer} changes keys or values after they were written")

    def check_attended(self) -> None:
        """Raises Unsupported where a layer wrote keys and values, and attended by itself."""
        if self._written:
            layers = ", ".join(map(str, sorted(self._written)))
            raise Unsupported(f"layers {layers} attend by code of their own")

    @property
    def like(self) -> Tensor:
        """Some layer's keys, as they lie in the pages."""
        return next(iter(self._memory.keys.values()))

    def take_over(self, program: Program) -> None:
        """A program that was made of a step of other tokens runs with these from now on."""
        way = CompiledAttention(self._starts, self._counts, self._tables, like=self.like)
        way.take_over(program)
        self._way = way

    def make_room(self) -> GatheredAttention:
        """Attend in tensors as large as these requests may become; keys and values of an earlier
        step are there."""
        tables, like = self._tables, self.like
        self._way = GatheredAttention(
            self._starts, self._counts, tables, like=like, room=self._most
        )
        return self._way

    def refill(self, way: GatheredAttention) -> None:
        """Tensors that were made for the step of other tokens hold these from now on."""
        way.fill(self._starts, self._tables)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int((self._starts + self._counts).max()) - 1

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """For masks, which say here how far a token sees and no more."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Likewise."""
        return query_length, 0

    def attend(
        self,
        query: Tensor,
        layer: int,
        *,
        scale: float | None,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """softmax(scale q K^T) V of each token over its own request's tokens, those behind it and
        those further back than `window` left out: [1, hq, N, d] -> [1, N, hq, dv]. With `cap`, a
        score s is cap tanh(s / cap); `sinks` [hq] are scores of no value beside each head's."""
        keys, values = self._memory.keys[layer], self._memory.values[layer]
        if scale is None:
            scale = 1 / math.sqrt(query.shape[-1])
        assert self._way is not None, "keys and values come first"
        return self._way.attend(
            query, keys, values, scale=scale, window=window, cap=cap, sinks=sinks
        )


class ServedAttention:
    """The model's attention while it is served: ours in a step, its own elsewhere."""

    def __init__(self, model: PreTrainedModel):
        """Raises Unsupported for a model whose attention cannot be replaced."""
        part = text_prefix(model).rstrip(".")
        self._model = model = cast("PreTrainedModel", model.get_submodule(part))
        before = model.config._attn_implementation
        if before not in ("sdpa", "eager"):
            raise Unsupported(f"it runs {before} attention, where sdpa or eager was expected")
        self._before = before
        self.step: FlatCache | None = None
        self._masks: dict[Window, Tensor] = {}
        """By window: what the model hands from its mask's making to its attention."""
        configs = [model.config, *(getattr(one, "config", None) for one in model.modules())]
        self._known = {id(one): one for one in configs if one is not None}
        """Every configuration that a module of the model holds."""
        _served.update(dict.fromkeys(self._known, self))
        if serve_falcon(model):  # transformers would leave its attention as it is
            model.config._attn_implementation = NAME
        else:
            model.set_attn_implementation(NAME)

    def mask(self, window: Window, *, device: torch.device) -> Tensor:
        """What stands for a mask of that window, the same tensor at every call."""
        if window not in self._masks:
            with torch.inference_mode(False):
                self._masks[window] = torch.zeros(1, 1, 1, 1, device=device)
        return self._masks[window]

    def window(self, mask: Tensor | None, module: torch.nn.Module) -> int | None:
        """The window of a mask that came back; raises Unsupported for one of the model's own."""
        if mask is None and getattr(module, "is_causal", True):
            return None
        for window, ours in self._masks.items():
            if mask is not None and is_same(mask, ours):
                if isinstance(window, str):
                    raise Unsupported(window)
                return window
        raise Unsupported(f"{type(module).__name__} attends by a mask of its own")

    def remove(self) -> None:
        """The model's own attention again; nothing where it is that already."""
        if leave_falcon(self._model):
            self._model.config._attn_implementation = self._before
        else:
            self._model.set_attn_implementation(self._before)
        for one in self._known:
            _served.pop(one, None)


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same numbers in the same memory, maybe in another shape."""
    return a is b or (a.numel() == b.numel() and a.data_ptr() == b.data_ptr())


NAME = "ramole"
_served: dict[int, ServedAttention] = {}
"""Models that are served, by the identity of the configurations that their modules hold."""
HARMLESS = frozenset(
    {
        *("dropout", "is_causal", "sliding_window", "position_ids", "use_cache", "layer_idx"),
        *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict"),
        *("logits_to_keep", "cache_position", "num_items_in_batch", "position_embeddings"),
    }
)
"""Options of the attention function that say nothing new: masks have the window, nothing is dropped
when nothing is trained, and positions are in the queries already."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options,
) -> tuple[Tensor, None]:
    served = _served[id(module.config)]
    step = served.step
    if step is None:
        return own_attention(module, query, key, value, attention_mask, options)
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    step.check_written(layer, key, value)
    unknown = [
        name
        for name, value in options.items()
        if value is not None and value is not False and name not in (*HARMLESS, *SCORES)
    ]
    if unknown or options.get("is_causal") is False:
        raise Unsupported(f"its attention takes {', '.join(sorted(unknown)) or 'is_causal=False'}")
    out = step.attend(
        query,
        layer,
        scale=options.get("scaling"),
        window=served.window(attention_mask, module),
        cap=options.get("softcap"),
        sinks=options.get("s_aux"),
    )
    return out, None


SCORES = ("scaling", "softcap", "s_aux")
"""Options that change the scores, and are understood."""


def own_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: Mapping[str, object],
) -> tuple[Tensor, None]:
    """The attention of a model outside of a step, by PyTorch."""
    cap, sinks, scale = (options.get(name) for name in ("softcap", "s_aux", "scaling"))
    if cap is None and sinks is None:
        return sdpa_attention_forward(module, query, key, value, mask, **options)  # pyright: ignore
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril(key.shape[2] - query.shape[2])[None, None]
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out = attend_by_scores(query, key, value, mask, scale=scale, cap=cap, sinks=sinks)  # pyright: ignore
    return out.transpose(1, 2), None


def _describe_mask(**said) -> Tensor | None:
    """A mask, as the model asks for it: in a step what stands for its window."""
    config = said["config"]
    served = _served.get(id(config)) or _served.get(id(config.get_text_config()))
    if served is None or served.step is None:
        return sdpa_mask(**said)
    mask, ours = said["attention_mask"], served.step.mask
    if mask is not None and not is_same(mask, ours):
        raise Unsupported("its masks leave out tokens")
    sizes = said.get("local_size"), getattr(config, "sliding_window", None)
    window = window_of(said["mask_function"], sizes)
    return served.mask(window, device=said["device"])


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _describe_mask)
