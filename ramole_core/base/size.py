"""How large a base model and its weights are, from the heads of its files: no weight is read, and
no torch is needed."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType


def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a folder."""
    return sum(math.prod(shape) for shape in weight_shapes(folder).values())


@lru_cache(maxsize=8)
def weight_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Of every tensor in the safetensors files of a folder, by name; read once."""
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
