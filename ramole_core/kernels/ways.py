"""The ways to multiply bfloat16 inputs, of which a CPU uses the one that it is fastest in.

The sums of tiles (`matrix_product`), of dots of bfloat16 (`half_dots`) and of float32 vectors
(`product`) differ in their last bits, so that one way serves every number of rows: the fastest for
many, as when a prompt is read. It is measured once and kept beside the kernels' code, so that all
processes agree. Some CPUs have dots of bfloat16 that are slower than widening both.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from llvmlite.binding import get_host_cpu_name

from ramole_core.kernels.code_cache import CACHE, FOLDER
from ramole_core.kernels.half_dots import MULTIPLIES
from ramole_core.kernels.matrix_unit import MATRIX

TILES, DOTS, VECTORS = "tiles", "dots", "vectors"
NAMES = {
    TILES: "the CPU's matrix unit",
    DOTS: "products of bfloat16",
    VECTORS: "float32 vectors",
}
"""Descriptions of the ways."""


def ways_here() -> tuple[str, ...]:
    """The ways to choose from on this CPU; where nothing can be kept, the first is taken."""
    if MATRIX:
        return TILES, VECTORS
    return (DOTS, VECTORS) if MULTIPLIES else (VECTORS,)


def pick_way(seconds_of: Callable[[str], float]) -> str:
    """The way that was kept for a choice between these, or the fastest by `seconds_of`, which is
    kept then; the first where it cannot be."""
    ways = ways_here()
    if len(ways) == 1 or not CACHE:
        return ways[0]
    file = FOLDER / f"way-{get_host_cpu_name()}-{'-'.join(ways)}"
    with suppress(OSError):
        if not file.is_file():
            _keep(min(ways, key=seconds_of), file)
        if (kept := file.read_text()) in ways:
            return kept
    return ways[0]


def _keep(way: str, file: Path) -> None:
    """Write the file as a whole, unless another process was first."""
    with NamedTemporaryFile("w", dir=file.parent) as new:
        new.write(way)
        new.flush()
        with suppress(FileExistsError):
            os.link(new.name, file)
