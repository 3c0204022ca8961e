"""Adapters on the device: cast once, kept while there is room, the least recently used leaves.

A batch holds the tensors it was built from, so an adapter that is evicted or removed meanwhile
stays as it was for the requests that run with it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ramole_core.composition import Lora

LoraSet = dict[str, Lora]
"""One adapter: module path -> its A and B."""


@dataclass(frozen=True)
class _Slot:
    loras: LoraSet
    size: int


class DeviceSlots:
    """An LRU of adapters by content checksum, bounded in bytes (one adapter may exceed it)."""

    def __init__(self, *, device: torch.device, dtype: torch.dtype, limit: int):
        self._device, self._dtype, self._limit = device, dtype, limit
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def get(self, checksum: str, load: Callable[[], LoraSet]) -> LoraSet:
        """The adapter on the device; `load` reads it where it is not there."""
        if checksum not in self._slots:
            loras = {path: self._move(lora) for path, lora in load().items()}
            size = sum(m.A.nbytes + m.B.nbytes for m in loras.values())
            self._slots[checksum] = _Slot(loras, size)
        self._slots.move_to_end(checksum)
        found = self._slots[checksum].loras
        while self.bytes > self._limit and len(self._slots) > 1:
            self._slots.popitem(last=False)
        return found

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return sum(slot.size for slot in self._slots.values())

    def _move(self, lora: Lora) -> Lora:
        return Lora(A=lora.A.to(self._device, self._dtype), B=lora.B.to(self._device, self._dtype))
