"""Adapters made for an evaluation, beside the sample pool's.

*Strangers* have random weights of the sample adapters' size, *spoilt copies* a sample adapter's
with noise; both show training inputs of the data, so that finding the right adapter is not free.
*Blind* copies show no examples; *permuted* ones those of another adapter, too; *uploads* have
invented examples. Those three belong to an owner of their own, so that nothing else finds them.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lab.lora_file import write_lora
from ramole_core.pool import Pool
from ramole_core.training.prompt_sets import Upload
from ramole_core.training.rows import read_task

BLIND, PERMUTED, UPLOADED = "evaluation-blind", "evaluation-permuted", "evaluation-uploads"
"""Owners."""
RANKS = (4, 6, 8, 16)
NOISES = (1.0, 2.0, 4.0)
"""Of spoilt copies: noise in A and in B, over the root mean square of each."""
IMPOSTORS = 2
FILES = ("adapter_model.safetensors", "adapter_config.json")
APART = 1e-6
"""Relative step between the scales of copies, far below rounding: the same content may not be in a
pool twice."""
Sizes = Mapping[str, tuple[int, int, float]]
"""(i, o, median Frobenius norm of B A) by module path."""
Made = tuple[str, Callable[[Path], object], Sequence[str] | None]
"""The name of an adapter, what writes it into a folder, and its examples."""


def add_made(pool: Pool, made: Iterable[Made], *, owner: str | None = None) -> list[str]:
    """Write adapters and add them; their names in the pool."""
    names = []
    with tempfile.TemporaryDirectory() as home:
        for place, (label, write, examples) in enumerate(made):
            folder = Path(home) / str(place)
            write(folder)
            names.append(pool.add(folder, name=label, examples=examples, owner=owner).name)
    return names


def usual_sizes(pool: Pool) -> Sizes:
    """Those of the sample adapters."""
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


def stranger(sizes: Sizes, *, place: int, seed: int) -> Callable[[Path], object]:
    """Writes an adapter of random directions on the modules of `sizes`."""

    def write(folder: Path) -> None:
        rank, chance = RANKS[place % len(RANKS)], torch.Generator().manual_seed(seed + place)
        modules = {}
        for path, (i, o, norm) in sizes.items():
            A = torch.randn(rank, i, generator=chance)
            B = torch.randn(o, rank, generator=chance)
            modules[path] = A, B * (norm / torch.linalg.matrix_norm(B @ A))
        write_lora(folder, modules)

    return write


def spoilt(pool: Pool, name: str, *, noise: float, seed: int) -> Callable[[Path], object]:
    """Writes the sample adapter `name` with Gaussian noise in every A and B."""

    def write(folder: Path) -> None:
        chance = torch.Generator().manual_seed(seed)

        def noisy(value: Tensor) -> Tensor:
            drawn = torch.randn(value.shape, generator=chance)
            return value + noise * value.square().mean().sqrt() * drawn

        pairs = pool.tensors(pool.card(name)).modules.items()  # the scale is folded into B
        write_lora(folder, {path: (noisy(A.float()), noisy(B.float())) for path, (A, B) in pairs})

    return write


def copied(pool: Pool, name: str, *, turn: int = 0) -> Callable[[Path], object]:
    """Writes the adapter's two files again; each `turn` has another content, and the same weights
    within rounding."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        for file in FILES:
            shutil.copyfile(pool.card(name).folder / file, folder / file)
        if turn:
            config = folder / FILES[1]
            said = json.loads(config.read_text(encoding="utf-8"))
            grown = 1 + turn * APART
            said["lora_alpha"] = float(said.get("lora_alpha") or 8) * grown
            patterns = said.get("alpha_pattern") or {}
            said["alpha_pattern"] = {key: float(alpha) * grown for key, alpha in patterns.items()}
            config.write_text(json.dumps(said), encoding="utf-8")

    return write


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


def add_spoilt(
    pool: Pool, samples: Iterable[tuple[str, list[str]]], *, each: int, seed: int
) -> list[str]:
    """Add `each` spoilt copies of every sample adapter, with example inputs of its own task in
    disjoint parts of the given ones; their names in the pool."""
    made = (
        (
            f"copy{n + 1}-{name}",
            spoilt(pool, name, noise=NOISES[(place + n) % len(NOISES)], seed=seed + 10 * place + n),
            examples[n::each],
        )
        for place, (name, examples) in enumerate(samples)
        for n in range(each)
    )
    return add_made(pool, made)


def add_strangers(
    pool: Pool, strangers: Iterable[tuple[str, list[str]]], *, seed: int
) -> list[str]:
    """Add a stranger for each name and its example inputs; their names in the pool."""
    sizes = usual_sizes(pool)
    made = (
        (f"other-{name}", stranger(sizes, place=place, seed=seed), examples)
        for place, (name, examples) in enumerate(strangers)
    )
    return add_made(pool, made)


def add_blind(pool: Pool, names: Sequence[str], *, seed: int) -> dict[str, str]:
    """A copy of each adapter without examples; the copies' names by the adapters'."""
    order = random.Random(f"{seed}/blind").sample(list(names), len(names))
    made = ((f"unnamed-{n}", copied(pool, name), None) for n, name in enumerate(order, 1))
    return dict(zip(order, add_made(pool, made, owner=BLIND), strict=True))


def add_permuted(pool: Pool, names: Sequence[str], *, seed: int) -> dict[str, str]:
    """Each adapter's examples shown by a copy of itself and by IMPOSTORS other adapters' copies.

    Returns the right copies' names by the adapters'. Every adapter is an impostor as often as any
    other.
    """
    shown = {name: list(pool.card(name).examples) for name in names}
    placed = permutations(names, 1 + IMPOSTORS, seed=seed)
    made = (
        (f"permuted-{place}", copied(pool, weights, turn=turn), shown[shows])
        for place, (turn, shows, weights) in enumerate(placed, 1)
    )
    pairs = zip(placed, add_made(pool, made, owner=PERMUTED), strict=True)
    return {shows: name for (_, shows, weights), name in pairs if shows == weights}


def permutations(names: Sequence[str], turns: int, *, seed: int) -> list[tuple[int, str, str]]:
    """(turn, whose examples, whose weights), shuffled: in turn 0 both are the same adapter's, in
    every other one each name's examples meet another's weights, never the same ones twice."""
    chance = random.Random(f"{seed}/permuted")
    order = chance.sample(list(names), len(names))
    shifts = [0, *chance.sample(range(1, len(order)), min(turns, len(order)) - 1)]
    made = [
        (turn, name, order[(n + shift) % len(order)])
        for turn, shift in enumerate(shifts)
        for n, name in enumerate(order)
    ]
    return chance.sample(made, len(made))


def add_uploads(pool: Pool, uploads: Sequence[Upload], *, seed: int) -> Mapping[str, str]:
    """An upload for each invented adapter, with its examples and random weights of the sample
    adapters' size; the names in the pool by the invented ones."""
    sizes = usual_sizes(pool)
    made = (
        (one.name, stranger(sizes, place=place, seed=seed + 9000), list(one.examples))
        for place, one in enumerate(uploads)
    )
    names = add_made(pool, made, owner=UPLOADED)
    return {one.name: name for one, name in zip(uploads, names, strict=True)}
