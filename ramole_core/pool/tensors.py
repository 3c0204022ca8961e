"""The tensors of an adapter, scale folded into B."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.errors import RamoleError
from ramole_core.pool.card import AdapterCard
from ramole_core.pool.config import CONFIG
from ramole_core.pool.header import Entry
from ramole_core.pool.inspection import WEIGHTS, Shapes, read_pairs
from ramole_core.pool.manifest import file_sha256, mending, read_manifest
from ramole_core.shapes import LoraA, LoraB

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class AdapterTensors:
    """Every pair (A [r, i], B [o, r]) by base module path; B holds alpha/r."""

    modules: dict[str, tuple[LoraA, LoraB]]


def load_tensors(card: AdapterCard, *, shapes: Shapes) -> AdapterTensors:
    """Reads the adapter's file once, checks its hash, and folds.

    Raises RamoleError if a file is no longer the one that was added, AdapterRefused if it does not
    fit `shapes`.
    """
    data = _read_checked(card)
    word, pairs = read_pairs(card.folder, shapes=shapes)
    return AdapterTensors(
        {
            path: (
                _tensor(data, pair.A),
                fold(_tensor(data, pair.B), word.scale_of(path, pair.rank)),
            )
            for path, pair in pairs.items()
        }
    )


def fold(B: LoraB, scale: float) -> LoraB:
    """scale * B, computed in fp32; in B's own dtype where that loses nothing, else in fp32."""
    wide = B.float() * scale
    narrow = wide.to(B.dtype)
    return narrow if torch.equal(narrow.float(), wide) else wide


def _read_checked(card: AdapterCard) -> bytes:
    advice = mending(card.folder, sample=card.sample)
    try:
        data = (card.folder / WEIGHTS).read_bytes()
        config = file_sha256(card.folder / CONFIG)
    except OSError as error:
        raise RamoleError(
            f"The files of adapter {card.name!r} cannot be read ({error.strerror}); {advice}"
        ) from None
    files = read_manifest(card.folder, sample=card.sample)["files"]
    expected = files[CONFIG]["sha256"] if isinstance(files, dict) else None
    if hashlib.sha256(data).hexdigest() != card.sha256 or config != expected:
        raise RamoleError(
            f"The files of adapter {card.name!r} were changed on disk since it was added; {advice}"
        )
    return data


def _tensor(data: bytes, entry: Entry) -> Tensor:
    """An aligned, writable copy."""
    piece = bytearray(data[entry.begin : entry.end])
    return torch.frombuffer(piece, dtype=_DTYPES[entry.dtype]).reshape(entry.shape)
