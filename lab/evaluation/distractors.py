"""Distractors for a crowded pool: adapters of random weights, and noisy copies of sample adapters.

Their examples are training inputs of the data, of other tasks or of the copied adapter's own, so
that finding the right adapter is not free.
"""

import random
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from lab.lora_file import write_lora
from ramole_core.pool import Pool
from ramole_core.training.rows import read_task

RANKS = (4, 6, 8, 16)


def usual_sizes(pool: Pool) -> dict[str, tuple[int, int, float]]:
    """(i, o, median Frobenius norm of B A) by module path, over the sample adapters."""
    norms: dict[str, list[float]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for card in pool.cards():
        for path, (A, B) in pool.tensors(card).modules.items():
            wide_a, wide_b = A.float(), B.float()
            # |BA|^2 = sum over (B^T B) * (A A^T), two r x r matrices
            squared = ((wide_b.T @ wide_b) * (wide_a @ wide_a.T)).sum()
            norms.setdefault(path, []).append(float(squared.clamp(min=0).sqrt()))
            shapes[path] = (A.shape[1], B.shape[0])
    return {
        path: (*shapes[path], float(torch.tensor(found).median())) for path, found in norms.items()
    }


def write_stranger(
    folder: Path, sizes: dict[str, tuple[int, int, float]], *, rank: int, seed: int
) -> Path:
    """An adapter of random directions on the modules of `sizes`, as PEFT would save it."""
    random_numbers = torch.Generator().manual_seed(seed)
    modules = {}
    for path, (i, o, norm) in sizes.items():
        A = torch.randn(rank, i, generator=random_numbers)
        B = torch.randn(o, rank, generator=random_numbers)
        modules[path] = A, B * (norm / torch.linalg.matrix_norm(B @ A))
    return write_lora(folder, modules)


def read_examples(
    data: Path, count: int, *, but: Collection[str], rows: int = 20, seed: int = 0
) -> Iterator[tuple[str, list[str]]]:
    """`count` tasks of the data by name, those in `but` left out, each with example inputs."""
    found = sorted(path.parent.name for path in data.glob("*/train.jsonl"))
    others = [name for name in found if name not in but]
    for name in random.Random(seed).sample(others, count):
        train = read_task(data / name).train
        drawn = random.Random(f"{seed}/{name}").sample(train, min(rows, len(train)))
        yield name, [row.inputs for row in drawn]


NOISES = (1.0, 2.0, 4.0)
"""Of spoilt copies: noise in A and in B, over the root mean square of each."""


def write_copy(folder: Path, pool: Pool, name: str, *, noise: float, seed: int) -> Path:
    """The sample adapter `name` with Gaussian noise in every A and B, as PEFT would save it."""
    random_numbers = torch.Generator().manual_seed(seed)

    def spoilt(value: Tensor) -> Tensor:
        drawn = torch.randn(value.shape, generator=random_numbers)
        return value + noise * value.square().mean().sqrt() * drawn

    pairs = pool.tensors(pool.card(name)).modules.items()  # the scale is folded into B
    return write_lora(
        folder, {path: (spoilt(A.float()), spoilt(B.float())) for path, (A, B) in pairs}
    )


def spoil(
    pool: Pool, samples: Iterable[tuple[str, list[str]]], *, each: int, seed: int
) -> list[str]:
    """Add `each` spoilt copies of every sample adapter, with example inputs of its own task in
    disjoint parts of the given ones; their names in the pool."""
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for place, (name, examples) in enumerate(samples):
            for n in range(each):
                noise = NOISES[(place + n) % len(NOISES)]
                label = f"copy{n + 1}-{name}"
                made = write_copy(
                    Path(folder) / label, pool, name, noise=noise, seed=seed + 10 * place + n
                )
                names.append(pool.add(made, name=label, examples=examples[n::each]).name)
    return names


def crowd(pool: Pool, strangers: Iterable[tuple[str, list[str]]], *, seed: int) -> list[str]:
    """Add a stranger for each name and its example inputs; their names in the pool."""
    sizes = usual_sizes(pool)
    names = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, examples) in enumerate(strangers):
            made = write_stranger(
                Path(folder) / name, sizes, rank=RANKS[number % len(RANKS)], seed=seed + number
            )
            names.append(pool.add(made, name=f"other-{name}", examples=examples).name)
    return names
