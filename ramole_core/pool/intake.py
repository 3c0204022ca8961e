"""Stage a source: copy files, check texts, collect notes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import Limits
from ramole_core.pool.examples_and_readme import (
    README,
    check_examples,
    parse_readme,
    read_examples,
    write_examples,
)
from ramole_core.pool.hub import PREFIX, copy_hub
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.names import clean_name
from ramole_core.pool.sources import Source, copy_source


@dataclass(frozen=True)
class Staged:
    """An adapter's files, copied but not yet checked."""

    name: str
    """Cleaned; from the source if it has one, else from the weights' hash."""
    notes: tuple[str, ...]
    example_notes: tuple[str, ...]


def stage_source(
    source: Source,
    into: Path,
    *,
    examples: Sequence[str] | None,
    limits: Limits,
    use_token: bool,
) -> Staged:
    """Copy `source` into the empty folder `into`; raises AdapterRefused.

    `examples` take the place of those that came with the files. `use_token`: whether the
    operator's Hub login may be used.
    """
    kept, example_notes = ([], []) if examples is None else check_examples(examples)
    if isinstance(source, str | os.PathLike) and str(source).startswith(PREFIX):
        found = copy_hub(str(source), into, limits=limits, use_token=use_token)
    else:
        found = copy_source(source, into, limits=limits)
    notes = list(found.notes)
    if (readme := into / README).exists():
        licence, description, problems = parse_readme(readme.read_bytes())
        notes += problems
        if problems:
            readme.unlink()
    came, problems = read_examples(into)
    if examples is None:
        kept, example_notes = came, problems
    write_examples(into, kept)
    return Staged(_name(found.name, into), tuple(notes), tuple(example_notes))


def _name(suggested: str | None, folder: Path) -> str:
    try:
        return clean_name((suggested or "").lstrip("_"))
    except AdapterRefused:
        with open(folder / WEIGHTS, "rb") as file:
            return "adapter-" + hashlib.file_digest(file, "sha256").hexdigest()[:8]
