"""manifest.json, which makes a folder an adapter of the pool and holds its card.

It holds a schema version, the SHA-256 and size of every file beside it, and the facts found when
the adapter was inspected, so that thousands of adapters open without reading a tensor.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import AdapterCard, Facts, Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.examples_and_readme import EXAMPLES, README, parse_examples, parse_readme
from ramole_core.pool.inspection import WEIGHTS, Shapes, inspect_folder
from ramole_core.whole_file import replacing

MANIFEST = "manifest.json"
SCHEMA = 1
_FILES = (WEIGHTS, CONFIG, README, EXAMPLES, "train.json")


def write_manifest(
    folder: Path,
    *,
    name: str,
    shapes: Shapes,
    owner: str | None = None,
    notes: Sequence[str] = (),
    limits: Limits | None = None,
    added: str | None = None,
) -> AdapterCard:
    """Inspects the adapter in `folder` and writes its manifest, last of all its files.

    `shapes`: (i, o) of the base's linear layers. Raises AdapterRefused if the pool would refuse it.
    """
    facts = inspect_folder(folder, shapes=shapes, limits=limits or Limits())
    return record(folder, facts, name=name, owner=owner, notes=notes, added=added)


def record(
    folder: Path,
    facts: Facts,
    *,
    name: str,
    owner: str | None,
    notes: Sequence[str] = (),
    example_notes: Sequence[str] = (),
    added: str | None = None,
) -> AdapterCard:
    """Write the manifest of a folder whose facts are known."""
    licence, description = None, ""
    if (folder / README).exists():
        licence, description, _ = parse_readme((folder / README).read_bytes())
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "owner": owner,
        "added": added or datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {
            file: {"sha256": file_sha256(folder / file), "bytes": (folder / file).stat().st_size}
            for file in _FILES
            if (folder / file).exists()
        },
        "modules": {path: [rank, facts.scales[path]] for path, rank in facts.ranks.items()},
        "dtype": facts.dtype,
        "parameters": facts.parameters,
        "base_model": facts.base_model,
        "licence": licence,
        "description": description,
        "notes": [*facts.notes, *notes],
        "example_notes": [*example_notes],
        "fits": facts.fits,
    }
    write_json(folder / MANIFEST, manifest)
    return read_card(folder)


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write JSON atomically."""
    with replacing(path, synced=True) as part:
        part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> Facts:
    """The facts that the manifest of `folder` holds; raises AdapterRefused if it is damaged."""
    card = read_card(folder)
    notes = read_manifest(folder)["notes"]
    return Facts(
        ranks=card.ranks,
        scales=card.scales,
        dtype=card.dtype,
        parameters=card.parameters,
        base_model=card.base_model,
        notes=tuple(map(str, notes if isinstance(notes, list) else [])),
        fits=card.fits,
    )


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path, *, sample: bool = False) -> dict[str, object]:
    """The manifest's object; raises AdapterRefused."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        what = f"{MANIFEST} cannot be read ({type(error).__name__})"
        raise _damaged(folder, what, sample=sample) from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise _damaged(folder, f"{MANIFEST} is not of schema {SCHEMA}", sample=sample)
    return manifest


def read_card(folder: Path, *, sample: bool = False) -> AdapterCard:
    """The card of a folder of the pool. Sizes of all files and the hash of the examples are
    compared with the manifest; raises AdapterRefused if the folder is damaged."""
    manifest = read_manifest(folder, sample=sample)
    try:
        examples = _check_files(folder, manifest["files"], sample=sample)
        return _card(folder, manifest, examples, sample=sample)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{MANIFEST} is not as it was written ({type(error).__name__}: {error})"
        raise _damaged(folder, reason, sample=sample) from None


def _check_files(folder: Path, files, *, sample: bool) -> list[str]:
    """Raise AdapterRefused if a file is gone or has another size; returns the examples."""
    for name in (WEIGHTS, CONFIG):
        files[name]["sha256"]
    for name, word in files.items():
        try:
            size = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            raise _damaged(folder, f"{name} is missing", sample=sample) from None
        if size != word["bytes"]:
            what = f"{name} has {size} bytes instead of {word['bytes']}"
            raise _damaged(folder, what, sample=sample)
    if EXAMPLES not in files:
        return []
    text = (folder / EXAMPLES).read_bytes()
    if hashlib.sha256(text).hexdigest() != files[EXAMPLES]["sha256"]:
        raise _damaged(folder, f"{EXAMPLES} was changed", sample=sample)
    return parse_examples(text)[0]


def _card(folder: Path, manifest, examples: list[str], *, sample: bool) -> AdapterCard:
    modules = manifest["modules"]
    ranks = {sys.intern(path): int(rank) for path, (rank, _) in modules.items()}
    scales = {sys.intern(path): float(scale) for path, (_, scale) in modules.items()}
    places = [_place(path) for path in ranks]
    weights = manifest["files"][WEIGHTS]
    notes = [str(note) for note in (*manifest["notes"], *manifest["example_notes"])]
    description = str(manifest["description"])
    if not examples:
        notes.append(
            "No examples were given: it is found by its "
            f"{'model card' if description else 'name'} only; add examples of its inputs."
        )
    return AdapterCard(
        name=str(manifest["name"]),
        owner=manifest["owner"],
        rank=max(ranks.values()),
        ranks=ranks,
        modules=tuple(dict.fromkeys(short for short, _ in places)),
        layers=tuple(sorted({layer for _, layer in places if layer is not None})),
        scale=max(scales.values()),
        scales=scales,
        dtype=str(manifest["dtype"]),
        parameters=int(manifest["parameters"]),
        bytes=int(weights["bytes"]),
        sha256=str(weights["sha256"]),
        base_model=manifest["base_model"],
        licence=manifest["licence"],
        description=description,
        notes=tuple(notes),
        examples=tuple(examples),
        added=str(manifest["added"]),
        vector_from="examples" if examples else "card" if description else "name",
        folder=folder,
        sample=sample,
        fits=str(manifest["fits"]),
    )


@lru_cache(maxsize=2**16)
def _place(path: str) -> tuple[str, int | None]:
    """Short name and layer of a module path: the last part, the first that is a number."""
    parts = path.split(".")
    layer = next((int(part) for part in parts if part.isdecimal()), None)
    return sys.intern(parts[-1]), layer


def mending(folder: Path, *, sample: bool) -> str:
    """Advice for files that were changed; those of a sample came with RAMoLE, and no command
    removes them."""
    if sample:
        return (
            "it is of the sample pool, so put its files back as they came, by "
            f"`git checkout -- {folder.name}` in {folder.parent} or from a new copy of RAMoLE, and "
            "start again."
        )
    return "remove the adapter and add it again."


def _damaged(folder: Path, what: str, *, sample: bool) -> AdapterRefused:
    advice = mending(folder, sample=sample)
    return AdapterRefused(f"The adapter folder {folder} is damaged and left out: {what}; {advice}")
