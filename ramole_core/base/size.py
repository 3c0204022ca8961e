"""The sizes of a base model and its weights from its files' headers, without reading weights or
importing torch."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType


def count_parameters(folder: Path) -> int:
    """The number of parameters in the safetensors files of a folder."""
    return sum(math.prod(shape) for shape in weight_shapes(folder).values())


@lru_cache(maxsize=8)
def weight_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor in the safetensors files of a folder, by name; cached."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= read_head(file)
    return MappingProxyType(found)


def read_head(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a safetensors file; raises ValueError or OSError where it
    is none."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} is no safetensors file")
        head = json.loads(opened.read(length))
    return {name: tuple(said["shape"]) for name, said in head.items() if name != "__metadata__"}
