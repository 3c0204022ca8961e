"""Attention over pages in torch operations, where no kernel fits: each request's pages are gathered
by its table."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ramole_core.engine.pages import PAGE


class GatheredAttention:
    """Attention of one flat forward; spans of equal length run together."""

    def __init__(
        self,
        starts: np.ndarray,
        counts: np.ndarray,
        tables: Sequence[np.ndarray],
        *,
        like: Tensor,
        room: int = 0,
    ):
        """Spans of `counts` tokens behind `starts` others, in the pages of `tables`; with `room`
        for as many pages of each, which `fill` puts there later."""
        device = like.device
        self._counts, self._room = counts, room
        firsts = np.cumsum(counts) - counts
        self._pages, self._slots = (
            torch.from_numpy(part).to(device) for part in self._written(starts, tables)
        )
        self._dv = 0
        self._groups: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each group of b spans: its tokens [b, n], their places [b, n], pages [b, most]."""
        for count in sorted(set(counts.tolist())):
            mine = np.flatnonzero(counts == count).tolist()
            most = room or max(-(-(int(starts[s]) + count) // PAGE) for s in mine)
            table = _padded([tables[s] for s in mine], most)
            tokens = firsts[mine][:, None] + np.arange(count)
            places = starts[mine][:, None] + np.arange(count)
            group = [torch.from_numpy(part).to(device) for part in (tokens, places, table)]
            self._groups.append((group[0], group[1], group[2]))

    def _written(
        self, starts: np.ndarray, tables: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        pages, slots = [], []
        for start, count, table in zip(starts, self._counts, tables, strict=True):
            at = np.arange(start, start + count)
            pages.append(table[at // PAGE])
            slots.append(at % PAGE)
        return np.concatenate(pages).astype(np.int64), np.concatenate(slots)

    def fill(self, starts: np.ndarray, tables: Sequence[np.ndarray]) -> None:
        """Refill the tensors with the places and pages of as many one-token spans."""
        ((_, places, table),) = self._groups
        found = *self._written(starts, tables), starts[:, None], _padded(tables, self._room)
        for kept, new in zip((self._pages, self._slots, places, table), found, strict=True):
            kept.copy_(torch.from_numpy(new))

    def write(self, keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor) -> None:
        """Write keys [1, h, N, d] and values [1, h, N, dv] of the tokens into their pages."""
        keys[self._pages, :, :, self._slots] = new_keys[0].transpose(0, 1)
        self._dv = new_values.shape[3]
        values[self._pages, :, self._slots, : self._dv] = new_values[0].transpose(0, 1)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        scale: float,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """[1, hq, N, d] -> [1, N, hq, dv]; the same layer's tokens were written just before. `cap`
        and `sinks` as in `FlatCache.attend`."""
        _, heads, n, _ = query.shape
        found = query.new_empty(n, heads, self._dv)
        for tokens, places, table in self._groups:
            q = query[0, :, tokens].transpose(0, 1)  # [b, hq, n, d]
            k = keys[table].permute(0, 2, 1, 4, 3).flatten(2, 3)  # [b, h, most * PAGE, d]
            v = values[table].permute(0, 2, 1, 3, 4).flatten(2, 3)[..., : self._dv]
            at = torch.arange(k.shape[2], device=k.device)
            seen = at <= places[..., None]  # [b, n, most * PAGE]
            if window is not None:
                seen &= at > places[..., None] - window
            v = v.masked_fill(at[:, None] > places[:, -1:, None, None], 0)  # may be no number
            k = k.masked_fill(at[:, None] > places[:, -1:, None, None], 0)
            shared = heads // k.shape[1]
            if cap is not None or sinks is not None:
                wide_k, wide_v = (one.repeat_interleave(shared, 1) for one in (k, v))
                out = attend_by_scores(
                    q, wide_k, wide_v, seen[:, None], scale=scale, cap=cap, sinks=sinks
                )
                found[tokens] = out.transpose(1, 2)
                continue
            packed = q.unflatten(1, (-1, shared)).flatten(2, 3)  # a key head's queries
            mask = seen[:, None].repeat(1, 1, shared, 1)
            out = scaled_dot_product_attention(packed, k, v, attn_mask=mask, scale=scale)
            out = out.unflatten(2, (shared, -1)).flatten(1, 2)  # [b, hq, n, dv]
            found[tokens] = out.transpose(1, 2)
        return found[None]


def attend_by_scores(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m dv"],
    seen: Bool[Tensor, "#b #h n m"],
    *,
    scale: float,
    cap: float | None = None,
    sinks: Float[Tensor, "h"] | None = None,
) -> Float[Tensor, "b h n dv"]:
    """softmax(cap tanh(scale q K^T / cap)) V, computed in float32; `sinks` are scores of no value,
    one beside each head's others."""
    scores = torch.einsum("bhnd,bhmd->bhnm", q.float(), k.float()) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        beside = sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, beside], dim=-1)
    weights = scores.softmax(-1)[..., : k.shape[2]]
    return torch.einsum("bhnm,bhmv->bhnv", weights, v.float()).to(q.dtype)


def _padded(tables: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Page tables as [b, most] int64, padded with page 0."""
    found = np.zeros((len(tables), most), np.int64)
    for row, table in enumerate(tables):
        part = table[:most]
        found[row, : len(part)] = part
    return found
