"""The same index through a real Chroma server, by URL."""

import socket
import subprocess
import sys
from pathlib import Path

import chromadb
import numpy as np
import pytest

from ramole_core import RamoleError
from ramole_core.retrieval import AdapterIndex, Retriever
from ramole_core.retrieval.collection import close_client
from tests.core.test_retrieval_index import brute, draw, entry, names
from tests.support.retrieval_fakes import FakeCard, FakeEncoder, FakePool
from tests.support.serving import free_port, wait_until


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A `chroma run` process, always at the same port."""

    def __init__(self, folder: Path):
        self.port = free_port()
        self.start(folder)

    def start(self, folder: Path) -> None:
        program = Path(sys.executable).with_name("chroma")
        self.process = subprocess.Popen(
            [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        wait_until(lambda: answers(self.port) or self.process.poll() is not None, seconds=60)
        assert self.process.poll() is None, "chroma run ended at once"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("chroma-server"))
    yield started
    started.stop()


@pytest.fixture
def index(server, tmp_path, request):
    opened = AdapterIndex(data_dir=tmp_path, url=address(server, request))
    yield opened
    opened.close()
    assert not list(tmp_path.iterdir())  # nothing is written here


def address(server: Server, request: pytest.FixtureRequest) -> str:
    name = "".join(c for c in request.node.name if c.isalnum())[:60]
    return f"http://127.0.0.1:{server.port}/{name}"


def test_the_four_verbs_equal_brute_force(index):
    rows = {f"pool/a{i}": v for i, v in enumerate(draw(83))}
    index.upsert({key: entry(v, texts=key) for key, v in rows.items()})
    index.delete(["pool/a7", "pool/a8"])
    del rows["pool/a7"], rows["pool/a8"]
    found = index.read()
    assert set(found) == set(rows) and found["pool/a3"].texts == "pool/a3"
    assert np.array_equal(found["pool/a3"].vector, rows["pool/a3"])
    random = np.random.default_rng(1)
    for query in draw(13, seed=2):
        among = {key for key in rows if random.random() < 0.5}
        expected = brute(query, {key: rows[key] for key in among}, 5)
        assert names(index.query(query, k=5, among=among)) == expected
    index.wipe()
    assert index.read() == {}


def test_a_retriever_on_a_server_follows_pool_and_server(index, server, request):
    sql, mood = FakeCard("sql", None, ("join",)), FakeCard("mood", "zoe", ("glad", "sad"))
    pool, encoder = FakePool({sql.key: sql, mood.key: mood}), FakeEncoder()
    retriever = Retriever(pool=pool, encoder=encoder, index=index)
    pool.listeners.append(retriever)
    hits = retriever.retrieve("join", k=9)
    assert [(hit.name, hit.score) for hit in hits] == [("sql", pytest.approx(1))]
    wine = pool.put(FakeCard("wine", None, ("wine",)))
    assert retriever.retrieve("wine", k=1, owner="zoe")[0].name == "wine"
    client = chromadb.HttpClient("127.0.0.1", server.port)
    held = client.get_collection(address(server, request).rpartition("/")[2])
    held.update(ids=["pool/sql"], embeddings=encoder.embed(["wine"]))
    held.update(ids=["pool/wine"], embeddings=-encoder.embed(["wine"]))
    assert [hit.name for hit in retriever.retrieve("wine", k=2)] == ["sql", "wine"]
    pool.take(wine)
    assert set(held.get(include=[])["ids"]) == {"pool/sql", "zoe/mood"}
    client.delete_collection(held.name)
    assert retriever.check().rebuilt
    assert [hit.name for hit in retriever.retrieve("join", k=1)] == ["sql"]
    close_client(client)


def test_a_server_that_stopped_and_came_back_empty(index, server, tmp_path_factory):
    card = FakeCard("sql", None, ("join",))
    retriever = Retriever(pool=FakePool({card.key: card}), encoder=FakeEncoder(), index=index)
    assert len(retriever.retrieve("join")) == 1
    server.stop()
    sentence = f"No Chroma server answers at http://127.0.0.1:{server.port}.*chroma run --path"
    try:
        with pytest.raises(RamoleError, match=sentence):
            retriever.retrieve("join")
    finally:
        server.start(tmp_path_factory.mktemp("empty"))
    retriever.check()
    assert len(retriever.retrieve("join")) == 1


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a:1", "http://", "http://a:b", "x"])
def test_an_address_that_is_none_gets_one_sentence(url, tmp_path):
    with pytest.raises(RamoleError, match="write it as http://host:port"):
        AdapterIndex(data_dir=tmp_path, url=url)
