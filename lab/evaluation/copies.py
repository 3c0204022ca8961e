"""Copies of the sample adapters that show other examples, or none: pools of `blind`, `permuted`.

They belong to an owner of their own, so that nothing else finds them, and their names say nothing.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.evaluation.distractors import RANKS, usual_sizes, write_stranger
from ramole_core.pool import Pool
from ramole_core.training.prompt_sets import Upload

BLIND, PERMUTED, UPLOADED = "evaluation-blind", "evaluation-permuted", "evaluation-uploads"
"""Owners."""
IMPOSTORS = 2
FILES = ("adapter_model.safetensors", "adapter_config.json")
APART = 1e-6
"""Relative step between the scales of copies, far below rounding: the same content may not be in a
pool twice."""


def add_blind(pool: Pool, names: Sequence[str], *, seed: int) -> dict[str, str]:
    """A copy of each adapter without examples; the copies' names by the adapters'."""
    order = random.Random(f"{seed}/blind").sample(list(names), len(names))
    copies = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(order, 1):
            made = write_again(pool, name, Path(folder) / f"blind-{place}")
            copies[name] = pool.add(made, name=f"unnamed-{place}", owner=BLIND).name
    return copies


def add_permuted(pool: Pool, names: Sequence[str], *, seed: int) -> dict[str, str]:
    """Each adapter's examples shown by a copy of itself and by IMPOSTORS other adapters' copies.

    Returns the right copies' names by the adapters'. Every adapter is an impostor as often as any
    other.
    """
    shown = {name: list(pool.card(name).examples) for name in names}
    copies = {}
    with tempfile.TemporaryDirectory() as folder:
        placed = enumerate(permutations(names, 1 + IMPOSTORS, seed=seed))
        for place, (turn, shows, weights) in placed:
            label = f"permuted-{place + 1}"
            made = write_again(pool, weights, Path(folder) / label, turn=turn)
            card = pool.add(made, name=label, examples=shown[shows], owner=PERMUTED)
            if weights == shows:
                copies[shows] = card.name
    return copies


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


def write_again(pool: Pool, name: str, folder: Path, *, turn: int = 0) -> Path:
    """The adapter's two files in a folder of their own; each `turn` has another content, and the
    same weights within rounding."""
    source = pool.card(name).folder
    folder.mkdir(parents=True)
    for file in FILES:
        shutil.copyfile(source / file, folder / file)
    if turn:
        config = folder / FILES[1]
        said = json.loads(config.read_text(encoding="utf-8"))
        grown = 1 + turn * APART
        said["lora_alpha"] = float(said.get("lora_alpha") or 8) * grown
        patterns = said.get("alpha_pattern") or {}
        said["alpha_pattern"] = {key: float(alpha) * grown for key, alpha in patterns.items()}
        config.write_text(json.dumps(said), encoding="utf-8")
    return folder


def add_uploads(pool: Pool, uploads: Sequence[Upload], *, seed: int) -> Mapping[str, str]:
    """An upload for each invented adapter, with its examples and random weights of the sample
    adapters' size; the names in the pool by the invented ones."""
    sizes = usual_sizes(pool)
    names = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, one in enumerate(uploads):
            made = write_stranger(
                Path(folder) / f"upload-{place}",
                sizes,
                rank=RANKS[place % len(RANKS)],
                seed=seed + 9000 + place,
            )
            card = pool.add(made, name=one.name, examples=list(one.examples), owner=UPLOADED)
            names[one.name] = card.name
    return names
