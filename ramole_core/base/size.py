"""How large a base model is, from the heads of its files: no weight is read."""

import math
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open


@lru_cache(maxsize=8)
def count_parameters(folder: Path) -> int:
    """Numbers in the safetensors files of a folder; counted once."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
    return total
