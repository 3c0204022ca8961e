"""Attention over pages in torch operations, where there are no kernels of ours: the pages of each
request are gathered by its table."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ramole_core.engine.pages import PAGE


class GatheredAttention:
    """Of one flat forward; spans of as many tokens are attended at once."""

    def __init__(
        self,
        starts: np.ndarray,
        counts: np.ndarray,
        tables: Sequence[np.ndarray],
        *,
        like: Tensor,
    ):
        """Spans of `counts` tokens behind `starts` others, in the pages of `tables`."""
        device = like.device
        firsts = np.cumsum(counts) - counts
        pages, slots = [], []
        for start, count, table in zip(starts, counts, tables, strict=True):
            at = np.arange(start, start + count)
            pages.append(table[at // PAGE])
            slots.append(at % PAGE)
        self._pages = torch.from_numpy(np.concatenate(pages).astype(np.int64)).to(device)
        self._slots = torch.from_numpy(np.concatenate(slots)).to(device)
        self._dv = 0
        self._groups: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each group of b spans: its tokens [b, n], their places [b, n], pages [b, most]."""
        for count in sorted(set(counts.tolist())):
            mine = np.flatnonzero(counts == count).tolist()
            most = max(-(-(int(starts[s]) + count) // PAGE) for s in mine)
            table = np.zeros((len(mine), most), np.int64)
            for row, s in enumerate(mine):
                part = tables[s][:most]
                table[row, : len(part)] = part
            tokens = firsts[mine][:, None] + np.arange(count)
            places = starts[mine][:, None] + np.arange(count)
            group = [torch.from_numpy(part).to(device) for part in (tokens, places, table)]
            self._groups.append((group[0], group[1], group[2]))

    def write(self, keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor) -> None:
        """Put keys [1, h, N, d] and values [1, h, N, dv] of the tokens into their pages."""
        keys[self._pages, :, :, self._slots] = new_keys[0].transpose(0, 1)
        self._dv = new_values.shape[3]
        values[self._pages, :, self._slots, : self._dv] = new_values[0].transpose(0, 1)

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """[1, hq, N, d] -> [1, N, hq, dv]; the same layer's tokens were written just before."""
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
            packed = q.unflatten(1, (-1, shared)).flatten(2, 3)  # a key head's queries
            mask = seen[:, None].repeat(1, 1, shared, 1)
            out = scaled_dot_product_attention(packed, k, v, attn_mask=mask, scale=scale)
            out = out.unflatten(2, (shared, -1)).flatten(1, 2)  # [b, hq, n, dv]
            found[tokens] = out.transpose(1, 2)
        return found[None]
