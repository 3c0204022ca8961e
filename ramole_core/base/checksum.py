"""Checksums of a base model's files: of one file, and of all its weights together."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing


def check_sum(file: Path, expected: str) -> None:
    """Raise RamoleError unless the file's SHA-256 is the expected one."""
    found = sha256(file)
    if found != expected:
        raise RamoleError(
            f"{file.name} has SHA-256 {found}, {expected} was expected; it was damaged or replaced "
            "on the way: fetch it again, from another mirror if need be."
        )


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_checksum(folder: Path, *, data_dir: Path) -> str:
    """SHA-256 over the folder's safetensors files in order of name, cached in DATA_DIR."""
    return _remembered(
        sorted(folder.glob("*.safetensors")),
        lambda files: hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest(),
        data_dir=data_dir,
    )


def remembered_sha256(file: Path, *, data_dir: Path) -> str:
    """The SHA-256 of a large file, cached in DATA_DIR while the file is unchanged."""
    return _remembered([file], lambda files: sha256(files[0]), data_dir=data_dir)


def _remembered(
    files: Sequence[Path], count: Callable[[Sequence[Path]], str], *, data_dir: Path
) -> str:
    key = json.dumps([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    memory = data_dir / "base" / "checksums.json"
    known = read_json(memory)
    if key not in known:
        total = count(files)
        with suppress(OSError), replacing(memory) as part:  # a full disk: it is counted again
            part.write_text(json.dumps({**known, key: total}))
        return total
    return str(known[key])


def read_json(file: Path) -> Mapping[str, object]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
