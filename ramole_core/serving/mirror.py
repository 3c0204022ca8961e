"""An engine's read-through cache of the store, on its own disk.

A store on this machine's disks is read where it lies. Of any other one the adapters that were used
last are kept, within a number of bytes.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ramole_core.composition import LoraSet
from ramole_core.errors import RamoleError
from ramole_core.pool.tensors import load_content
from ramole_core.serving.store import AdapterStore, not_there

MAX_BYTES = 8 * 2**30


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
        """Delete the files of these adapters."""
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
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{secrets.token_hex(8)}"
        unfinished.mkdir()
        try:
            self._store.fetch(content, unfinished)
            found = self._checked(content, unfinished)
            if place.exists() and self._load(content, place) is None:
                shutil.rmtree(place, ignore_errors=True)
            with suppress(OSError):
                unfinished.rename(place)
            self.reads += 1
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
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
