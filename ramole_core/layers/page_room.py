"""Bytes of a page of the bank, and how many pages fit. Both depend on which experts have pages:
they are most of a page, and few adapters change them."""

from collections.abc import Sequence

import torch

from ramole_core.layers.layout import Layout
from ramole_core.layers.units import Units


class PageRoom:
    """The page budget of one bank; `limit` in bytes."""

    def __init__(self, layout: Layout, *, dtype: torch.dtype, limit: int):
        self._layout, self._itemsize, self._limit = layout, dtype.itemsize, limit
        groups = enumerate(layout.groups)
        self.experts = frozenset(g for g, group in groups if group.of_experts)
        """All groups of experts."""

    def experts_of(self, adapters: Sequence[Units]) -> frozenset[int]:
        """Groups in which one of these has experts."""
        return frozenset(g for g in self.experts if any(one.A[g].shape[1] for one in adapters))

    def page_bytes(self, experts: frozenset[int]) -> int:
        """Bytes of a page where these groups of experts have some."""
        asleep = self.experts - experts
        groups = enumerate(self._layout.groups)
        numbers = sum(group.unit_numbers for g, group in groups if g not in asleep)
        return max(1, numbers * self._itemsize)

    def most(self, experts: frozenset[int]) -> int:
        """Pages, at least one."""
        return max(1, self._limit // self.page_bytes(experts))
