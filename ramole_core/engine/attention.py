"""The attention of a flat forward: every token over its own request's pages, up to itself.

The model runs with its own code; a cache that writes into the pages (`flat_cache.py`) and an
attention function that reads them take the places of its own while a step runs. That holds for a
model that passes each layer's keys and values to the cache, and then these very tensors, with a
mask that was made for them and nothing else, to the attention function. `_attend` checks this at
every call, and raises Unsupported where it is not so.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask
from transformers.models.falcon.modeling_falcon import FalconAttention, apply_rotary_pos_emb

from ramole_core.base.architecture import text_prefix
from ramole_core.engine.flat_cache import FlatCache
from ramole_core.engine.gathered_attention import attend_by_scores
from ramole_core.errors import Unsupported

Window = int | str | None
"""Number of the last tokens that are visible; None: all so far; str: why it is not known."""
FAR = 1 << 24
"""A position beyond every window."""
_found: dict[Hashable, Window] = {}


def window_of(sees: Callable, sizes: Iterable[int | None]) -> Window:
    """The window of a mask function; `sizes` are the windows that it may have."""
    if sees is causal_mask_function:
        return None
    windows = tuple(dict.fromkeys(w for w in sizes if w))
    parts = _parts_of(sees)
    if parts is None:
        return _ask(sees, windows)
    if (windows, parts) not in _found:
        _found[windows, parts] = _ask(sees, windows)
    return _found[windows, parts]


def _ask(sees: Callable, windows: Sequence[int]) -> Window:
    places = {0, 1, 5, *(at for w in windows for at in (w - 1, w, w + 1, 2 * w + 3))}
    asked = [(at, torch.arange(2 * at + 2)) for at in sorted(places)]
    asked.append((FAR, FAR - torch.tensor([-1, 0, 1, 100, 10_000, FAR // 2, FAR - 1, FAR])))
    first = torch.zeros((), dtype=torch.long)
    try:
        seen = [
            torch.as_tensor(sees(first, first, torch.full_like(keys, at), keys)).expand(len(keys))
            for at, keys in asked
        ]
    except Exception as error:  # of padding, images or blocks: it looks at other tensors
        return f"its mask depends on more than places ({error})"
    for window in (None, *windows):
        wanted = [(keys <= at) & (keys > at - (window or FAR + 1)) for at, keys in asked]
        if all(map(torch.equal, seen, wanted)):
            return window
    return "its mask is neither causal nor a sliding window"


def _parts_of(function: object) -> Hashable | None:
    """The parts of a function that determine its result; None: not known."""
    if isinstance(function, int | str | None):
        return function, type(function)
    if isinstance(function, tuple):
        parts = [_parts_of(part) for part in function]
        return None if None in parts else tuple(parts)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    cells = [_parts_of(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    return None if None in cells else (code, *cells)


class ServedAttention:
    """The attention of a served model: ours in a step, its own elsewhere."""

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
        """By window: the tensor that a model passes from where masks are made to its attention."""
        configs = [model.config, *(getattr(one, "config", None) for one in model.modules())]
        self._known = {id(one): one for one in configs if one is not None}
        """Every configuration that a module of the model holds."""
        _served.update(dict.fromkeys(self._known, self))
        if _swap(
            model, FalconAttention, ServedFalconAttention
        ):  # transformers would leave its attention as it is
            model.config._attn_implementation = NAME
        else:
            model.set_attn_implementation(NAME)

    def mask(self, window: Window, *, device: torch.device) -> Tensor:
        """Return the tensor that stands for a mask of that window, the same at every call."""
        if window not in self._masks:
            with torch.inference_mode(False):
                self._masks[window] = torch.zeros(1, 1, 1, 1, device=device)
        return self._masks[window]

    def window(self, mask: Tensor | None, module: torch.nn.Module) -> int | None:
        """Return the window of a mask made here; raises Unsupported for the model's own masks."""
        if mask is None and getattr(module, "is_causal", True):
            return None
        for window, ours in self._masks.items():
            if mask is not None and is_same(mask, ours):
                if isinstance(window, str):
                    raise Unsupported(window)
                return window
        raise Unsupported(f"{type(module).__name__} attends by a mask of its own")

    def remove(self) -> None:
        if _swap(self._model, ServedFalconAttention, FalconAttention):
            self._model.config._attn_implementation = self._before
        else:
            self._model.set_attn_implementation(self._before)
        for one in self._known:
            _served.pop(one, None)


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors share the same memory, in any shape."""
    return a is b or (a.numel() == b.numel() and a.data_ptr() == b.data_ptr())


NAME = "ramole"
_served: dict[int, ServedAttention] = {}
"""Models that are served, by the identity of the configurations that their modules hold."""
IGNORED_OPTIONS = frozenset(
    {
        *("dropout", "is_causal", "sliding_window", "position_ids", "use_cache", "layer_idx"),
        *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict"),
        *("logits_to_keep", "cache_position", "num_items_in_batch", "position_embeddings"),
    }
)
"""Options of the attention function that change nothing: masks have the window, dropout is for
training, and positions are in the queries already."""


SCORE_OPTIONS = ("scaling", "softcap", "s_aux")
"""Options that change the scores, and are computed here."""


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
        if value is not None
        and value is not False
        and name not in (*IGNORED_OPTIONS, *SCORE_OPTIONS)
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


def own_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: Mapping[str, object],
) -> tuple[Tensor, None]:
    """Attention outside a step, by PyTorch."""
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
    """Return transformers' mask, or in a step the tensor that represents its window."""
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


class ServedFalconAttention(FalconAttention):
    """Falcon's attention, which calls PyTorch's by itself, through the model's attention function;
    keys and values shared by heads are kept once."""

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


def _swap(model: PreTrainedModel, one: type, other: type) -> bool:
    """Change the class of these modules; return whether there are any."""
    found = [module for module in model.modules() if type(module) is one]
    for module in found:
        module.__class__ = other
    return bool(found)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _describe_mask)
