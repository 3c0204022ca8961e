"""manifest.json, which makes a folder an adapter of the pool and holds its card.

It holds a schema version, the SHA-256 and size of every file beside it, and the facts found when
the adapter was inspected, so that thousands of adapters open without reading a tensor.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from ramole_core.base.files import sha256
from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import AdapterCard, Limits
from ramole_core.pool.config import CONFIG
from ramole_core.pool.examples_and_readme import EXAMPLES, README, parse_examples, parse_readme
from ramole_core.pool.inspection import WEIGHTS, Facts, Shapes, inspect_folder
from ramole_core.whole_file import replacing

MANIFEST = "manifest.json"
SCHEMA = 1
_FILES = (WEIGHTS, CONFIG, README, EXAMPLES, "train.json")


def write_manifest(folder: Path, *, name: str, shapes: Shapes) -> AdapterCard:
    """Inspect the adapter in `folder` and write its manifest, last of all its files.

    `shapes`: (i, o) of the base's linear layers. Raises AdapterRefused if the pool would refuse it.
    """
    facts, notes = inspect_folder(folder, shapes=shapes, limits=Limits())
    return record(folder, facts, name=name, owner=None, notes=notes)


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
        "files": {},
        **facts,
        "licence": licence,
        "description": description,
        "notes": [*notes],
        "example_notes": [*example_notes],
    }
    return _write(folder, manifest)


def renew(folder: Path, earlier: Path, *, example_notes: Sequence[str]) -> AdapterCard:
    """Write the manifest of a folder that differs from an earlier one in its examples."""
    with _as_written(earlier, sample=False):
        manifest = _parse(earlier)
    return _write(folder, {**manifest, "example_notes": [*example_notes]})


def _write(folder: Path, manifest: Mapping[str, object]) -> AdapterCard:
    """Write a manifest, its `files` being those that the folder has now."""
    files = {
        file: {"sha256": sha256(folder / file), "bytes": (folder / file).stat().st_size}
        for file in _FILES
        if (folder / file).exists()
    }
    write_json(folder / MANIFEST, {**manifest, "files": files})
    return read_card(folder)


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write JSON atomically."""
    with replacing(path, synced=True) as part:
        part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def recorded_sha256(folder: Path, file: str, *, sample: bool) -> str:
    """The checksum that a file had when it was added; raises AdapterRefused."""
    with _as_written(folder, sample=sample):
        return str(_parse(folder)["files"][file]["sha256"])


def read_card(folder: Path, *, sample: bool = False) -> AdapterCard:
    """The card of a folder of the pool. Sizes of all files and the hash of the examples are
    compared with the manifest; raises AdapterRefused if the folder is damaged."""
    with _as_written(folder, sample=sample):
        manifest = _parse(folder)
        return _card(folder, manifest, _check_files(folder, manifest["files"]), sample=sample)


class _Damaged(ValueError):
    """Damage of a folder."""


@contextmanager
def _as_written(folder: Path, *, sample: bool) -> Iterator[None]:
    """Raise AdapterRefused for damage found in the body."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{MANIFEST} is not as it was written ({type(error).__name__}: {error})"
        what = error if isinstance(error, _Damaged) else what
        raise AdapterRefused(
            f"The adapter folder {folder} is damaged and left out: {what}; "
            f"{repair_advice(folder, sample=sample)}"
        ) from None


def _parse(folder: Path):
    """The manifest's object; raises ValueError."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _Damaged(f"{MANIFEST} cannot be read ({type(error).__name__})") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise _Damaged(f"{MANIFEST} is not of schema {SCHEMA}")
    return manifest


def _check_files(folder: Path, files) -> list[str]:
    """Raise _Damaged if a file is gone or has another size; returns the examples."""
    for name in (WEIGHTS, CONFIG):
        files[name]["sha256"]
    for name, word in files.items():
        try:
            size = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            raise _Damaged(f"{name} is missing") from None
        if size != word["bytes"]:
            raise _Damaged(f"{name} has {size} bytes instead of {word['bytes']}")
    if EXAMPLES not in files:
        return []
    text = (folder / EXAMPLES).read_bytes()
    if hashlib.sha256(text).hexdigest() != files[EXAMPLES]["sha256"]:
        raise _Damaged(f"{EXAMPLES} was changed")
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


def repair_advice(folder: Path, *, sample: bool) -> str:
    """Advice for files that were changed; those of a sample came with RAMoLE, and no command
    removes them."""
    if sample:
        return (
            "it is of the sample pool, so put its files back as they came, by "
            f"`git checkout -- {folder.name}` in {folder.parent} or from a new copy of RAMoLE, and "
            "start again."
        )
    return "remove the adapter and add it again."
