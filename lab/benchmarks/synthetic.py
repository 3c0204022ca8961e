"""Adapters made on the fly: folders as PEFT writes them, with weights of a trained one's size.

Random A and B of the root mean squares that the sample pool's adapters have, so that gates are as
sharp and caches as full as in earnest; what they answer is nonsense. Every adapter is other bytes
on disk: a window, at a place of its own, of one large table of random numbers.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lab.lora_file import write_lora
from ramole_core.composition import load_trained, random_router
from ramole_core.composition.router import read_router
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.errors import RamoleError
from ramole_core.methods import find_row
from ramole_core.pool import write_manifest

Shapes = Mapping[str, tuple[int, int]]

A_RMS = 1.1
"""Times (3 i)^-1/2, the uniform start that a trained A is still close to."""
B_RMS = 0.011
ALPHA_OVER_RANK = 2.0
TABLE = 2**24
"""Random numbers in the table; a window starts at any of them."""


def write_adapters(
    folder: Path,
    *,
    shapes: Shapes,
    ranks: Sequence[int],
    dtype: torch.dtype,
    tell: Callable[[float], None] = lambda fraction: None,
) -> list[str]:
    """One adapter for each of `ranks` below `folder`, on every module of `shapes`; their names.

    Those that are there already, whole, are kept: the same name has the same bytes.
    """
    names = []
    for number, rank in enumerate(ranks):
        name = f"made_{number:05d}_r{rank}"
        names.append(name)
        if not (folder / name / "manifest.json").is_file():
            _write_adapter(folder / name, shapes=shapes, rank=rank, seed=number, dtype=dtype)
            write_manifest(folder / name, name=name, shapes=shapes)
        tell((number + 1) / len(ranks))
    return names


def write_router(folder: Path, *, like: Path, shapes: Shapes) -> None:
    """The trained router in the folder `like`, or a random one where it does not fit the base."""
    folder.mkdir(parents=True, exist_ok=True)
    row = find_row("ramole")
    weights, config = weights_file(folder, row), config_file(folder, row)
    try:
        read_router(load_trained(like, row), shapes=shapes)
    except RamoleError:
        router = random_router(shapes, rank=6)
        save_file(
            {f"{p}.{half}_r": getattr(m, half) for p, m in router.modules.items() for half in "AB"},
            weights,
        )
        config.write_text("{}")
        return
    for file in (weights, config):
        shutil.copyfile(like / file.name, file)


def bytes_of(shapes: Shapes, ranks: Sequence[int], dtype: torch.dtype) -> int:
    """What the tensors of such adapters take on disk."""
    return sum(ranks) * sum(i + o for i, o in shapes.values()) * dtype.itemsize


def _write_adapter(
    folder: Path, *, shapes: Shapes, rank: int, seed: int, dtype: torch.dtype
) -> None:
    table = _table()
    place = int(torch.randint(TABLE, (), generator=torch.Generator().manual_seed(seed)))
    modules = {}
    for path, (i, o) in shapes.items():
        A = _window(table, place, rank * i).reshape(rank, i)
        B = _window(table, (place + A.numel()) % TABLE, o * rank).reshape(o, rank)
        place = (place + A.numel() + B.numel()) % TABLE
        modules[path] = A * (A_RMS * (3 * i) ** -0.5), B * B_RMS
    write_lora(folder, modules, scale=ALPHA_OVER_RANK, dtype=dtype)


def _window(table: Tensor, place: int, count: int) -> Tensor:
    if place + count <= TABLE:
        return table[place : place + count]
    return torch.cat([table[place:], table[: place + count - TABLE]])


@lru_cache(maxsize=1)
def _table() -> Tensor:
    return torch.randn(TABLE, generator=torch.Generator().manual_seed(0))
