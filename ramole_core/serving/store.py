"""The store: every adapter's two files under its checksum, in a folder or behind any fsspec URL.

    adapters/<first two letters>/<checksum>/adapter_config.json, adapter_model.safetensors
    gone/<checksum>     the adapter is removed; its files go once they are not read

Only the page writes. The weights are written last, each file under a name of its own
and then renamed, so that what has weights is whole; readers check it by its checksum. No
card lies there: neither names, nor owners, nor examples.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from ramole_core.errors import RamoleError, removed_meanwhile
from ramole_core.pool.config import CONFIG
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.whole_file import replacing

FILES = (CONFIG, WEIGHTS)
"""In the order in which they are written."""


class AdapterStore:
    """One store; thread-safe."""

    def __init__(self, url: str):
        """`url`: a folder, or what fsspec knows (`s3://bucket/path`)."""
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
        return Path(self._where[1]) if self._on_disk else None

    @property
    def _on_disk(self) -> bool:
        said = self._fs.protocol
        return "file" in ((said,) if isinstance(said, str) else said)

    def place(self, content: str) -> str:
        """The folder of an adapter."""
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
        """Publish the adapter in `folder`, undoing `bury`. Raises OSError."""
        if not self.holds(content):
            place = self.place(content)
            self._fs.makedirs(place, exist_ok=True)
            for file in FILES:
                self._write(folder / file, f"{place}/{file}")
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._tomb(content))

    def fetch(self, content: str, folder: Path) -> None:
        """Copy the adapter's files into an empty local folder; raises RamoleError where it is not
        there, OSError where it cannot be read."""
        try:
            for file in FILES:
                self._fs.get_file(f"{self.place(content)}/{file}", str(folder / file))
        except FileNotFoundError:
            raise not_there(content) from None

    def bury(self, content: str) -> None:
        """Mark the adapter as removed, to be deleted by `sweep` once unused."""
        tomb = self._tomb(content)
        self._fs.makedirs(tomb.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(tomb, b"")

    def buried(self) -> set[str]:
        """Checksums of removed adapters that are still stored."""
        graves = self._tomb("").rstrip("/")
        self._fs.invalidate_cache()
        if not self._fs.exists(graves):
            return set()
        return {Path(path).name for path in self._fs.find(graves)}

    def sweep(self, needed: Callable[[str], bool]) -> list[str]:
        """Delete buried adapters that are not needed; returns which are gone. What cannot be
        deleted stays buried, and goes with a later sweep."""
        gone = []
        for content in sorted(self.buried()):
            if needed(content):
                continue
            with suppress(OSError):
                if self._fs.exists(place := self.place(content)):
                    self._fs.rm(place, recursive=True)
                self._fs.rm_file(self._tomb(content))
                gone.append(content)
        return gone

    def _tomb(self, content: str) -> str:
        return f"{self._where[1].rstrip('/')}/gone/{content}"

    def _write(self, source: Path, target: str) -> None:
        """Write atomically: by a rename on a disk; an object appears when complete."""
        if not self._on_disk:
            self._fs.put_file(str(source), target)
            return
        with replacing(Path(target)) as part:
            self._fs.put_file(str(source), str(part))


def not_there(content: str) -> RamoleError:
    """The error for an adapter that is gone from the store."""
    return removed_meanwhile(f"with the checksum {content[:12]}...")
