"""The base rounded to 4 bits and kept in bfloat16: the 4-bit base's numbers, faster on a CPU."""

import tempfile
from pathlib import Path

from ramole_core.base.model import dequantised, load_base


def write_rounded(folder: Path, target: Path, quantization: str = "nf4") -> Path:
    """Write the rounded copy of the base in `folder` to `target`, with its tokenizer.

    The same numbers as the 4-bit base within rounding of bfloat16; on a CPU, where every forward of
    a 4-bit batch unpacks the weights again, several times faster.
    """
    with tempfile.TemporaryDirectory() as memory:
        base = load_base(str(folder), data_dir=Path(memory), quantization=quantization)
        dequantised(base).save_pretrained(target)
        base.tokenizer.save_pretrained(target)
    return target
