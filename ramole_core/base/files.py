"""A base model's files: their checksums, and sizes from their headers, all without torch."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing


def local_path(setting: str, value: str) -> Path:
    """The path that a setting's value is, `~` expanded; raises RamoleError where nobody has that
    home."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise RamoleError(
            f"{setting}={value}: nobody has that home; write the whole path."
        ) from None


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


def count_parameters(folder: Path) -> int:
    """The number of parameters in the safetensors files of a folder."""
    return sum(math.prod(shape) for shape in weight_shapes(folder).values())


@lru_cache(maxsize=8)
def weight_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor in the safetensors files of a folder, by name; cached."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= read_head(file)
    return MappingProxyType(found)


def read_head(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a safetensors file; raises ValueError or OSError where it
    is none."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} is no safetensors file")
        head = json.loads(opened.read(length))
    return {name: tuple(said["shape"]) for name, said in head.items() if name != "__metadata__"}


def read_json(file: Path) -> Mapping[str, object]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
