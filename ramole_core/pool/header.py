"""Read the safetensors header: names, shapes and offsets, without the tensors.

Format (github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON object
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the tensors' bytes without holes.
"""

import math
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

from ramole_core.errors import AdapterRefused
from ramole_core.pool.strict_json import parse_object, shorten

WEIGHTS = "adapter_model.safetensors"
MAX_HEADER = 4 * 2**20
"""Bytes; an adapter of 1,000 modules needs about 0.3 MiB."""
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""The dtypes an adapter may have."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    """Offsets in the file, in bytes."""


def read_header(file: BinaryIO, size: int) -> dict[str, TensorInfo]:
    """Every tensor of a file of `size` bytes; raises AdapterRefused for anything out of order."""
    start = file.read(8)
    if len(start) < 8:
        raise _broken(f"it has {size} bytes, fewer than the 8 of a header's length")
    (length,) = struct.unpack("<Q", start)
    if length > MAX_HEADER:
        raise _broken(f"its header says it is {length} bytes long; at most {MAX_HEADER} are read")
    if 8 + length > size:
        raise _broken(f"its header of {length} bytes does not fit in {size} bytes")
    text = file.read(length)
    header = parse_object(text, f"The header of {WEIGHTS}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(t, str) for t in metadata.values()):
        raise _broken("its __metadata__ is not an object of texts")
    entries = {name: _entry(name, word) for name, word in header.items()}
    _check_offsets(entries, size - 8 - length)
    base = 8 + length
    return {name: replace(e, begin=base + e.begin, end=base + e.end) for name, e in entries.items()}


def _entry(name: str, word: object) -> TensorInfo:
    short = name[:120]
    if not isinstance(word, dict) or set(word) != {"dtype", "shape", "data_offsets"}:
        raise _broken(f"{short!r} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = word["dtype"], word["shape"], word["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise AdapterRefused(
            f"{WEIGHTS} holds {short!r} in {shorten(dtype)}; expected F32, F16 or BF16: save the "
            "adapter in one of these."
        )
    if not _are_sizes(shape):
        raise _broken(f"{short!r} has the shape {shorten(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _broken(f"{short!r} has the offsets {shorten(offsets)}")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _broken(f"{short!r} of shape {shape} in {dtype} does not take {end - begin} bytes")
    return TensorInfo(dtype, tuple(shape), begin, end)


def _are_sizes(word: object) -> bool:
    return (
        isinstance(word, list)
        and len(word) <= 8
        and all(type(n) is int and 0 <= n < 2**48 for n in word)
    )


def _check_offsets(entries: dict[str, TensorInfo], size: int) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise _broken(f"{name[:120]!r} begins at byte {entry.begin}, where {at} was expected")
        at = entry.end
    if at != size:
        raise _broken(f"its tensors take {at} bytes but {size} are there")


def _broken(what: str) -> AdapterRefused:
    return AdapterRefused(
        f"{WEIGHTS} is not a sound safetensors file: {what}; save the adapter again with PEFT's "
        "save_pretrained."
    )
