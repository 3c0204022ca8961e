"""The collection of vectors in Chroma: opened in a folder or at a server, in cosine space, without
an embedding function."""

from typing import TYPE_CHECKING, cast

from ramole_core.errors import RamoleError

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb import Collection
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client

COLLECTION = "adapters"
DATABASE = "chroma.sqlite3"

_DEAD: set[str] = set()  # path spellings whose start failed: Chroma never tries these again


class IndexBroken(RamoleError):
    """The index cannot be read or written; it has to be rebuilt from the pool."""


def open_folder(folder: "Path") -> "tuple[Client, Collection]":
    """Open the collection in a local folder, created if missing."""
    from chromadb import PersistentClient
    from chromadb.config import Settings

    # Chroma shares one system among the clients of one path, and keeps it even when its start
    # failed. A spelling of our own makes close() close, and a rebuilt folder open again.
    spelling = f"{folder}/."
    while spelling in _DEAD:
        spelling += "/."
    try:
        client = PersistentClient(spelling, settings=Settings(anonymized_telemetry=False))
    except BaseException:
        _DEAD.add(spelling)
        raise
    return _create(client, COLLECTION)


def open_server(host: str, port: int, *, ssl: bool, name: str) -> "tuple[Client, Collection]":
    """Open the collection of a server, created if missing."""
    from chromadb import HttpClient
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    return _create(HttpClient(host, port, ssl=ssl, settings=settings), name)


def close_client(client: "ClientAPI") -> None:
    """Close all connections of a server's client; its own close() leaves two open."""
    for part in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(part, "_server", None), "_session", None)
        if session is not None:
            session.close()
    cast("Client", client).close()


def _create(client: "ClientAPI", name: str) -> "tuple[Client, Collection]":
    try:
        collection = client.get_or_create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        said = collection.configuration_json
        space = (said.get("hnsw") or said.get("spann") or {}).get("space")
        if space != "cosine":
            raise IndexBroken(f"The collection {name!r} measures {space!r}, not cosine.")
    except BaseException:
        close_client(client)
        raise
    return cast("Client", client), collection
