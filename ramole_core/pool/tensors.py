"""The tensors of an adapter, scale folded into B."""

import hashlib
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ramole_core.composition import Lora
from ramole_core.errors import RamoleError
from ramole_core.pool.card import AdapterCard, content_of
from ramole_core.pool.config import CONFIG
from ramole_core.pool.header import ITEM_BYTES, TensorInfo
from ramole_core.pool.inspection import WEIGHTS, Shapes, match_pairs, scales_of
from ramole_core.pool.manifest import recorded_sha256, repair_advice
from ramole_core.shapes import LoraA, LoraB

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class AdapterTensors:
    """Every pair (A [r, i], B [o, r]) by base module path; B holds alpha/r."""

    modules: dict[str, tuple[LoraA, LoraB]]

    @property
    def loras(self) -> dict[str, Lora]:
        """The same, as a method mixes them."""
        return {path: Lora(A=A, B=B) for path, (A, B) in self.modules.items()}


def load_tensors(card: AdapterCard, *, shapes: Shapes) -> AdapterTensors:
    """Read the adapter's file once, check its hash, and fold the scale.

    Raises RamoleError if a file is no longer the one that was added, AdapterRefused if it does not
    fit `shapes`.
    """
    return _tensors(*_read_checked(card), shapes=shapes)[0]


def load_content(folder: Path, content: str, *, shapes: Shapes) -> AdapterTensors | None:
    """Load a folder without a card, by its checksum (`AdapterCard.content`); None where the content
    differs. Raises AdapterRefused if it does not fit."""
    try:
        data, config = ((folder / name).read_bytes() for name in (WEIGHTS, CONFIG))
    except OSError:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    if not content.startswith(sha256):
        return None
    tensors, scales = _tensors(data, config, shapes=shapes)
    return tensors if content_of(sha256, scales) == content else None


def _tensors(
    data: bytes, config: bytes, *, shapes: Shapes
) -> tuple[AdapterTensors, dict[str, float]]:
    """Tensors of the weights' bytes and the configuration, and the folded scales."""
    word, pairs = match_pairs(config, BytesIO(data), len(data), shapes=shapes)
    scales = scales_of(word, pairs)
    modules = {
        path: (_tensor(data, pair.A), fold(_tensor(data, pair.B, pair.columns), scales[path]))
        for path, pair in pairs.items()
    }
    return AdapterTensors(modules), scales


def fold(B: LoraB, scale: float) -> LoraB:
    """scale * B, computed in fp32; in B's own dtype where that loses nothing, else in fp32."""
    wide = B.float() * scale
    narrow = wide.to(B.dtype)
    return narrow if torch.equal(narrow.float(), wide) else wide


def _read_checked(card: AdapterCard) -> tuple[bytes, bytes]:
    """Return weights and configuration, checked to be those that were added."""
    advice = repair_advice(card.folder, sample=card.sample)
    try:
        data, config = ((card.folder / name).read_bytes() for name in (WEIGHTS, CONFIG))
    except OSError as error:
        raise RamoleError(
            f"The files of adapter {card.name!r} cannot be read ({error.strerror}); {advice}"
        ) from None
    expected = [card.sha256, recorded_sha256(card.folder, CONFIG, sample=card.sample)]
    if [hashlib.sha256(read).hexdigest() for read in (data, config)] != expected:
        raise RamoleError(
            f"The files of adapter {card.name!r} were changed on disk since it was added; {advice}"
        )
    return data, config


def _tensor(data: bytes, entry: TensorInfo, columns: slice = slice(None)) -> Tensor:
    """An aligned, writable copy of all columns, or of some."""
    kind = f"<i{ITEM_BYTES[entry.dtype]}"
    whole = np.frombuffer(data, kind, math.prod(entry.shape), entry.begin).reshape(entry.shape)
    return torch.from_numpy(whole[:, columns].copy()).view(_DTYPES[entry.dtype])
