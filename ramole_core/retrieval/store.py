"""The store of vectors: Chroma on local disk, or a Chroma server.

The embedded Chroma keeps its graph in memory and does not notice when another client, in this
process or another, writes to the same folder. So the embedded store watches SQLite's
`data_version`, which any other connection's commit changes, and opens Chroma anew when it moved.
Files that changed without a commit are examined first (`examination.py`), since Chroma may end the
process at them; so is a folder that was not closed.
"""

import shutil
import socket
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from ramole_core.errors import RamoleError, first_line
from ramole_core.retrieval.collection import (
    COLLECTION,
    DATABASE,
    IndexBroken,
    close_client,
    open_folder,
    open_server,
)
from ramole_core.retrieval.examination import MARK, make_safe, mark

if TYPE_CHECKING:
    from chromadb import Collection
    from chromadb.api.client import Client


class EmbeddedChroma:
    """Chroma in a local folder; one process at a time writes there."""

    watched = True
    """`opened` gives another object after every write that did not go through it."""

    def __init__(self, folder: Path):
        self.where = str(folder)
        self._folder = folder
        self._file = folder / DATABASE
        self._trusted = False
        self._client: Client | None = None
        self._collection: Collection | None = None
        self._watch: sqlite3.Connection | None = None
        self._unwatch: weakref.finalize | None = None
        """Closes it, also where this is not closed."""
        self._version: tuple[int, int] = (0, 0)
        self._files: dict[Path, tuple[int, int, int]] = {}

    @contextmanager
    def opened(self) -> "Iterator[Collection]":
        """The collection as it is on disk now; raises IndexBroken when its file was deleted."""
        if self._collection is not None:
            if not self._file.is_file():
                self.close()
                raise IndexBroken(f"The index in {self._folder} was deleted.")
            if self._version_now() != self._version:
                self.close()
            elif self._files_now() != self._files:  # no client of Chroma's did that
                self.close()
                self._trusted = False
        yield self._collection or self._open()
        self._version, self._files = self._version_now(), self._files_now()

    def wipe(self) -> None:
        """Delete every vector and any broken file."""
        self.close()
        try:
            if self._folder.exists():
                shutil.rmtree(self._folder)
        except OSError as error:
            raise RamoleError(
                f"The broken index in {self._folder} cannot be deleted ({error.strerror}); "
                "delete this folder yourself."
            ) from error

    def close(self, *, sound: bool = False) -> None:
        """Close files; a later call opens them again. `sound`: all reads and writes succeeded."""
        marks = sound and self._collection is not None and self._files_now() == self._files
        if self._unwatch is not None:
            self._unwatch()
        if self._client is not None:
            self._client.close()
        self._client = self._collection = self._watch = self._unwatch = None
        if marks:
            mark(self._folder)
            self._trusted = False

    def _open(self) -> "Collection":
        if not self._trusted and (wrong := make_safe(self._folder)):
            raise IndexBroken(
                f"The index in {self._folder} is broken ({wrong}); it is rebuilt from the pool."
            )
        self._trusted = True
        self._client, self._collection = open_folder(self._folder)
        self._watch = sqlite3.connect(
            f"{self._file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        self._unwatch = weakref.finalize(self, self._watch.close)
        return self._collection

    def _version_now(self) -> tuple[int, int]:
        assert self._watch is not None
        version = self._watch.execute("PRAGMA data_version").fetchone()[0]
        return self._file.stat().st_ino, version

    def _files_now(self) -> dict[Path, tuple[int, int, int]]:
        """Number, size and time of each file but the mark and SQLite's temporary ones."""
        found = {}
        for path in self._folder.rglob("*.*"):
            if path.name != MARK and not path.name.startswith(f"{DATABASE}-"):
                with suppress(OSError):  # gone meanwhile
                    told = path.stat()
                    found[path] = (told.st_ino, told.st_size, told.st_mtime_ns)
        return found


class ChromaServer:
    """A Chroma server at http(s)://host:port; a path in the URL names the collection.

    The collection belongs to one RAMoLE: another with the same pool may not share it.
    """

    watched = False

    def __init__(self, url: str):
        """Raises RamoleError when the URL is not one; nothing is contacted yet."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise RamoleError(
                f"RAMOLE_CHROMA_URL={url!r} is not the address of a Chroma server; "
                "write it as http://host:port."
            )
        self.where = url
        self._ssl = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._ssl else 8000)
        self._name = parts.path.strip("/") or COLLECTION
        self._client: Client | None = None
        self._collection: Collection | None = None

    @contextmanager
    def opened(self) -> "Iterator[Collection]":
        """The server's collection; raises RamoleError when no server answers."""
        if self._collection is None:
            try:  # Chroma's own client waits without limit for a host that does not answer
                socket.create_connection((self._host, self._port), timeout=5).close()
                self._client, self._collection = open_server(
                    self._host, self._port, ssl=self._ssl, name=self._name
                )
            except (OSError, ValueError) as error:
                raise self.unreachable(error) from error
        yield self._collection

    def wipe(self) -> None:
        from chromadb.errors import NotFoundError

        with self.opened(), suppress(NotFoundError):
            cast("Client", self._client).delete_collection(self._name)
        self._collection = None

    def close(self, *, sound: bool = False) -> None:
        if self._client is not None:
            close_client(self._client)
        self._client = self._collection = None

    def unreachable(self, error: BaseException) -> RamoleError:
        """The sentence for a server that does not answer."""
        reason = first_line(error)
        return RamoleError(
            f"No Chroma server answers at {self.where} ({reason}); start one with "
            "`chroma run --path FOLDER`, or unset RAMOLE_CHROMA_URL for an index on local disk."
        )


Store = EmbeddedChroma | ChromaServer
