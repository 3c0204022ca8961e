"""Kept mixes: a few adapters, their weights and a method, by name; a small file each.

    DATA_DIR/mixes/<owner's folder>/<name>.json

A mix holds no tensors: it names adapters by name and content, and is refused where one of them was
removed or changed. Those without an owner are shared. A file has its owner too, since the folder's
name does not, and is removed with its owner.
"""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter

from ramole_core.errors import RamoleError
from ramole_core.methods import find_row
from ramole_core.pool.disk import refused_by_disk
from ramole_core.pool.names import clean_name, near_names, owner_folder
from ramole_core.request import Generation, Request
from ramole_core.whole_file import replacing

MAX_MIXES = 500
"""Mixes of one owner."""
MAX_BYTES = 2**16
"""Most bytes of a mix's file that are read."""
DEFAULT = Request.method
"""The method of a request that names none; a mix's replaces it."""


@dataclass(frozen=True)
class Mix:
    """A kept mix."""

    name: str
    method: str
    adapters: tuple[str, ...]
    checksums: tuple[str, ...]
    """Checksums of their contents."""
    weights: tuple[FiniteFloat, ...]
    loss: float
    """Loss of the examples that the weights were found on, nats a token."""

    def request(self, asked: Request, contents: Mapping[str, str]) -> Request:
        """The request with the mix filled in; `contents` are the checksums of the adapters that
        there are, by name. Raises RamoleError where one was removed or is another one now, or the
        request has another method."""
        if asked.method not in (DEFAULT, self.method):
            raise RamoleError(
                f"Mix {self.name} is of method {self.method}, and the request says {asked.method}; "
                "leave the method out."
            )
        for name, checksum in zip(self.adapters, self.checksums, strict=True):
            if contents.get(name) != checksum:
                what = "is another one now" if name in contents else "is no longer in the pool"
                raise RamoleError(
                    f"Mix {self.name} has the adapter {name}, which {what}; put that one back, or "
                    "find the weights anew."
                )
        said = {"method": self.method, "adapters": self.adapters, "weights": self.weights}
        return replace(asked, **said, mix=None)


class Mixes:
    """All mixes of a data folder; thread-safe."""

    def __init__(self, data_dir: Path):
        self._folder, self._lock = data_dir / "mixes", threading.Lock()

    def keep(self, name: str, answer: Generation, owner: str | None) -> Mix:
        """Keep a search's weights; raises RamoleError where it has none, or the name is taken."""
        found = answer.fitted
        if found is None:
            raise RamoleError(
                "This answer has no weights that were found, so there is nothing to keep; ask with "
                "examples and a method that finds weights on them, such as lorahub."
            )
        with self._lock:
            name = self.free_name(name, owner)
            file = self._file(name, owner)
            mix = Mix(
                name, found.method, found.adapters, found.checksums, found.weights, found.loss
            )
            with refused_by_disk("kept", what="mix"):
                self._write(file, {**asdict(mix), "owner": owner})
        return mix

    def free_name(self, name: str, owner: str | None) -> str:
        """The name that a new mix would get; raises RamoleError where it cannot be kept."""
        name = clean_name(name)
        if self._file(name, owner).exists():
            raise RamoleError(f"There is a mix {name} already; remove it, or say another name.")
        if len(self._files(owner)) >= MAX_MIXES:
            raise RamoleError(f"{MAX_MIXES} mixes are kept, the most there may be; remove some.")
        return name

    def all(self, owner: str | None) -> list[Mix]:
        """The owner's and the shared mixes, by name; an own one hides a shared one. A file that is
        no mix is left out."""
        found: dict[str, Mix] = {}
        for whose in dict.fromkeys((None, owner)):
            for file in self._files(whose):
                mix = _read(file)
                if mix is not None:
                    found[mix.name] = mix
        return [found[name] for name in sorted(found)]

    def get(self, name: str, owner: str | None) -> Mix:
        """The mix of that name; raises RamoleError that lists similar names."""
        every = {mix.name: mix for mix in self.all(owner)}
        if name not in every:
            known = near_names(name[:80], every) if every else "none was kept yet."
            raise RamoleError(f"There is no mix {name[:80]!r}; {known}")
        return every[name]

    def remove(self, name: str, owner: str | None) -> None:
        """Remove the owner's own; raises RamoleError where there is none."""
        with self._lock:
            files = {file.stem: file for file in self._files(owner)}
            if name not in files:
                known = near_names(name[:80], files) if files else "none was kept yet."
                raise RamoleError(f"There is no mix {name[:80]!r} to remove; {known}")
            with refused_by_disk("removed", what="mix"):
                files[name].unlink()
            self._prune(files[name].parent)

    def owners(self) -> set[str]:
        """All owners of mixes."""
        files = self._folder.glob("*/*.json")
        said = {file: _said(file).get("owner") for file in files}
        return {
            owner
            for file, owner in said.items()
            if isinstance(owner, str) and owner and self._file(file.stem, owner) == file
        }

    def remove_all(self, owner: str) -> int:
        """Remove all of the owner's own; returns how many."""
        with self._lock:
            files = self._files(owner)
            for file in files:
                file.unlink(missing_ok=True)
            if files:
                self._prune(files[0].parent)
        return len(files)

    def _write(self, file: Path, said: Mapping[str, object]) -> None:
        """Write atomically."""
        try:
            with replacing(file) as part:
                part.write_text(json.dumps(said, indent=1), encoding="utf-8")
        except BaseException:
            self._prune(file.parent)
            raise

    def _prune(self, folder: Path) -> None:
        """Remove an owner's folder, and the one above it, if empty."""
        for empty in (folder, self._folder):
            with suppress(OSError):
                empty.rmdir()

    def _file(self, name: str, owner: str | None) -> Path:
        return self._folder / owner_folder(owner) / f"{name}.json"

    def _files(self, owner: str | None) -> list[Path]:
        return sorted((self._folder / owner_folder(owner)).glob("*.json"))


_MIX = TypeAdapter(Mix)


def _read(file: Path) -> Mix | None:
    """Read the mix in a file, None where it holds none."""
    try:
        mix = _MIX.validate_python({**_said(file), "name": file.stem})
        find_row(mix.method)
    except (ValueError, RamoleError):
        return None
    whole = 0 < len(mix.adapters) == len(mix.checksums) == len(mix.weights)
    return mix if whole and len(set(mix.adapters)) == len(mix.adapters) else None


def _said(file: Path) -> dict:
    """Read a file's JSON object; empty where it is none."""
    try:
        with file.open("rb") as opened:
            said = json.loads(opened.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
