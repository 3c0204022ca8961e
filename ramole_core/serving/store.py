"""The store: every adapter's two files under its checksum, in a folder or behind any fsspec URL.

    adapters/<first two letters>/<checksum>/adapter_config.json, adapter_model.safetensors

Only the page writes. The weights are written last, each file under a name of its own
and then renamed, so that what has weights is whole; readers check it by its checksum. No
card lies there: neither names, nor owners, nor examples.

An engine reads a store on this machine's disks where it lies; of any other one it keeps the
adapters that were used last on its own disk, within a number of bytes (`Mirror`).
"""

import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from ramole_core.composition import LoraSet
from ramole_core.errors import RamoleError, removed_meanwhile
from ramole_core.pool.config import CONFIG
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.tensors import load_content
from ramole_core.whole_file import replacing

FILES = (CONFIG, WEIGHTS)
"""Files of an adapter, in the order in which they are written."""
MAX_BYTES = 8 * 2**30
"""Most bytes of a mirror."""


class AdapterStore:
    """One store; thread-safe."""

    def __init__(self, url: str):
        """`url`: a folder, or a URL of fsspec (`s3://bucket/path`)."""
        self.url = url

    @cached_property
    def _where(self) -> tuple[Any, str]:
        try:
            return url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise RamoleError(
                f"RAMOLE_STORE_URL={self.url} cannot be used ({error}); name a folder that all "
                "machines share, or a URL of a file system that fsspec knows and that is installed."
            ) from None

    @property
    def _fs(self) -> Any:
        return self._where[0]

    @property
    def folder(self) -> Path | None:
        """Its local folder; None where it is remote."""
        said = self._fs.protocol
        on_disk = "file" in ((said,) if isinstance(said, str) else said)
        return Path(self._where[1]) if on_disk else None

    def place(self, content: str) -> str:
        return f"{self._where[1].rstrip('/')}/adapters/{content[:2]}/{content}"

    def holds(self, content: str) -> bool:
        """Whether the complete adapter is in the store."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(f"{self.place(content)}/{WEIGHTS}"))

    def contents(self) -> set[str]:
        """Checksums of all complete adapters."""
        root = f"{self._where[1].rstrip('/')}/adapters"
        self._fs.invalidate_cache()
        if not self._fs.exists(root):
            return set()
        found = (Path(path) for path in self._fs.find(root))
        return {path.parent.name for path in found if path.name == WEIGHTS}

    def put(self, content: str, folder: Path) -> None:
        """Publish the adapter in `folder`. Raises OSError."""
        if not self.holds(content):
            place = self.place(content)
            self._fs.makedirs(place, exist_ok=True)
            for file in FILES:
                self._write(folder / file, f"{place}/{file}")

    def fetch(self, content: str, folder: Path) -> None:
        """Copy the adapter's files into an empty local folder; raises RamoleError where it is not
        there, OSError where it cannot be read."""
        try:
            for file in FILES:
                self._fs.get_file(f"{self.place(content)}/{file}", str(folder / file))
        except FileNotFoundError:
            raise not_there(content) from None

    def delete(self, content: str) -> None:
        """Delete the adapter's files, if they are there. Raises OSError."""
        self._fs.invalidate_cache()
        if self._fs.exists(place := self.place(content)):
            self._fs.rm(place, recursive=True)

    def _write(self, source: Path, target: str) -> None:
        """Write atomically: by a rename on a disk; an object appears when complete."""
        if self.folder is None:
            self._fs.put_file(str(source), target)
            return
        with replacing(Path(target)) as part:
            self._fs.put_file(str(source), str(part))


def not_there(content: str) -> RamoleError:
    """The error for an adapter that is gone from the store."""
    return removed_meanwhile(f"with the checksum {content[:12]}...")


class Mirror:
    """The cache of one store on one machine; several processes may share the folder."""

    def __init__(
        self,
        store: AdapterStore,
        folder: Path,
        *,
        shapes: Mapping[str, tuple[int, int]],
        most_bytes: int = MAX_BYTES,
    ):
        """`folder` is the mirror's own; `shapes`: (i, o) of the base's linear layers."""
        self._store, self._folder, self._shapes = store, folder, shapes
        self._most = most_bytes
        self._lock = threading.Lock()
        self.reads = 0
        """Adapters that were copied from the store."""

    def loras(self, content: str) -> LoraSet:
        """The adapter of this checksum; raises RamoleError where it is gone or damaged."""
        near = self._store.folder
        if near is not None:
            return self._checked(content, Path(self._store.place(content)))
        place = self._folder / content
        if (found := self._load(content, place)) is not None:
            with suppress(OSError):
                os.utime(place)
            return found
        return self._read_through(content, place)

    def forget(self, contents: Iterable[str]) -> None:
        for content in contents:
            shutil.rmtree(self._folder / content, ignore_errors=True)

    def _checked(self, content: str, place: Path) -> LoraSet:
        found = self._load(content, place)
        if found is not None:
            return found
        if not self._store.holds(content):
            raise not_there(content)
        raise RamoleError(
            f"The files of the adapter {content[:12]}... in the store {self._store.url} are not "
            "what was published; remove the adapter and add it again."
        )

    def _load(self, content: str, place: Path) -> LoraSet | None:
        found = load_content(place, content, shapes=self._shapes)
        return None if found is None else found.loras

    def _read_through(self, content: str, place: Path) -> LoraSet:
        """Copy it under another name, read it there, then rename it over a damaged copy; another
        process's whole copy stays."""
        found = None
        try:
            with replacing(place) as part:
                part.mkdir()
                self._store.fetch(content, part)
                found = self._checked(content, part)
                if place.exists() and self._load(content, place) is None:
                    shutil.rmtree(place, ignore_errors=True)
        except OSError:
            if found is None:
                raise
        self.reads += 1
        self._make_room(content)
        return found

    def _make_room(self, kept: str) -> None:
        """Delete the least recently used until the rest fits."""
        with self._lock:
            held = []
            for one in self._folder.iterdir():
                with suppress(OSError):
                    size = sum(file.stat().st_size for file in one.iterdir())
                    held.append((one.stat().st_mtime, size, one))
            left = sum(size for _, size, _ in held)
            for _, size, one in sorted(held):
                if left <= self._most:
                    return
                if one.name != kept and not one.name.startswith("."):
                    shutil.rmtree(one, ignore_errors=True)
                    left -= size
