"""A damaged index never ends the process that opens it: another one looks first."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ramole_core.retrieval.store as store_file
from ramole_core.retrieval.graph_check import HEADER, Header, wrong_in_graph
from ramole_core.retrieval.index import AdapterIndex, Entry
from ramole_core.retrieval.store import IndexBroken
from tests.serving import REPOSITORY

D = 16
START = """
import sys
from pathlib import Path
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.store import IndexBroken
index = AdapterIndex(data_dir=Path(sys.argv[1]))
try:
    index.read()
except IndexBroken as error:
    print(error)
    index.wipe()
print(len(index.read()))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An index with a graph on disk, closed."""
    root = tmp_path_factory.mktemp("whole")
    index = AdapterIndex(data_dir=root)
    vectors = np.random.default_rng(0).normal(size=(1200, D)).astype(np.float32)
    index.upsert({f"pool/a{i}": Entry(None, "t", "e", v) for i, v in enumerate(vectors)})
    index.close()
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    shutil.copytree(whole / "chroma", tmp_path / "chroma")
    return tmp_path


def spoil_graph(chroma: Path) -> None:
    (file,) = chroma.glob("*/data_level0.bin")
    file.write_bytes(b"\xff" * file.stat().st_size)


def spoil_schema(chroma: Path) -> None:
    file = chroma / "chroma.sqlite3"
    data = file.read_bytes()
    assert b"CREATE TABLE collections" in data
    file.write_bytes(data.replace(b"CREATE TABLE collections", b"CREATE T\xe0BLE collections"))


def spoil_page(chroma: Path) -> None:
    with (chroma / "chroma.sqlite3").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\x5a" * 4096)


@pytest.mark.parametrize("spoil", [spoil_graph, spoil_schema, spoil_page])
def test_no_damage_ends_the_process_that_starts(root, spoil: Callable[[Path], None]):
    spoil(root / "chroma")
    done = subprocess.run(
        [sys.executable, "-c", START, str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told, count = done.stdout.strip().splitlines()
    assert "is broken" in told and "rebuilt from the pool" in told and count == "0"


OPEN = """
import sys
from pathlib import Path
import numpy as np
from ramole_core.retrieval.graph_check import HEADER, Header, wrong_in_graph
from ramole_core.retrieval.index import AdapterIndex, Entry
from ramole_core.retrieval.store import IndexBroken
from tests import test_harm_index as spoils
root = Path(sys.argv[1])
index = AdapterIndex(data_dir=root)
print(len(index.read()))
spoils.spoil_graph(root / "chroma")
try:
    index.upsert({"pool/new": Entry(None, "t", "e", np.ones(spoils.D, np.float32))})
except IndexBroken as error:
    print(error)
    index.wipe()
index.close()
print(len(AdapterIndex(data_dir=root).read()))
"""


def test_damage_under_a_process_that_has_the_index_open_is_seen(root):
    words = [sys.executable, "-c", OPEN, str(root)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    had, told, count = done.stdout.strip().splitlines()
    assert had == "1200" and "is broken" in told and count == "0"


def test_ordinary_use_is_not_taken_for_damage(root, looks, monkeypatch):
    opened, create = [], store_file._create

    def counted(*words):
        opened.append(words)
        return create(*words)

    monkeypatch.setattr(store_file, "_create", counted)
    index = AdapterIndex(data_dir=root)
    for n in range(3):
        vectors = np.eye(D, dtype=np.float32)[np.arange(700) % D]
        entries = {f"pool/b{n}.{i}": Entry(None, "t", "e", v) for i, v in enumerate(vectors)}
        index.upsert(entries)
        index.read(["pool/a1"])
        index.query(np.ones(D, np.float32), k=2, among={"pool/a1", "pool/a2"})
        index.delete([key for key in entries if key.endswith("7")])
        time.sleep(0.02)
    assert len(index.read()) == 1200 + 3 * 630 and len(opened) == 1
    index.close()
    assert looks == []


def test_a_vector_whose_bits_were_flipped_is_seen(root):
    """Nothing is broken, and yet it is another vector."""
    (file,) = (root / "chroma").glob("*/data_level0.bin")
    index = AdapterIndex(data_dir=root)
    vector = index.read(["pool/a7"])["pool/a7"].vector
    index.close()
    numbers = np.fromfile(file, np.float32)
    rows = np.lib.stride_tricks.sliding_window_view(numbers, D)
    (place,) = np.flatnonzero(np.isclose(rows, vector / np.linalg.norm(vector)).all(1))
    numbers[place + 5] *= -1
    numbers.tofile(file)
    with pytest.raises(IndexBroken, match="other vectors than were written"):
        AdapterIndex(data_dir=root).read()


def test_lengths_that_were_flipped_are_seen(root):
    """Chroma keeps them apart from the directions."""
    (file,) = (root / "chroma").glob("*/length.bin")
    file.write_bytes(np.full(file.stat().st_size // 4, 1e30, np.float32).tobytes())
    with pytest.raises(IndexBroken, match="other vectors than were written"):
        AdapterIndex(data_dir=root).read()


@pytest.fixture
def looks(monkeypatch) -> list[Path]:
    """The folders at which another process looked."""
    seen = []
    look = store_file.complaint

    def looked(folder: Path) -> str:
        seen.append(folder)
        return look(folder)

    monkeypatch.setattr(store_file, "complaint", looked)
    return seen


def test_what_was_closed_in_order_is_opened_at_once(root, looks):
    for _ in range(2):
        index = AdapterIndex(data_dir=root)
        assert len(index.read()) == 1200
        index.close()
    assert looks == []


def test_what_a_kill_left_is_looked_at_once_and_stays_as_it_was(root, looks):
    index = AdapterIndex(data_dir=root)
    index.upsert({"pool/new": Entry(None, "t", "e", np.ones(D, np.float32))})
    killed = root / "killed"
    shutil.copytree(root / "chroma", killed / "chroma")  # as it lies on disk now
    index.close()
    other = AdapterIndex(data_dir=killed)
    assert len(other.read()) == 1201 and looks == [killed / "chroma"]
    assert len(other.read()) == 1201 and len(looks) == 1
    other.close()


def test_an_index_that_broke_is_not_taken_for_sound(root, looks):
    spoil_page(root / "chroma")
    index = AdapterIndex(data_dir=root)
    with pytest.raises(IndexBroken):
        index.read()
    index.close()
    with pytest.raises(IndexBroken):
        AdapterIndex(data_dir=root).read()
    assert len(looks) == 2


# --- links that point at nothing ------------------------------------------------------------------


def flip(file: Path, at: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[at + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.fixture
def graph(root) -> Path:
    (header,) = root.glob("chroma/*/header.bin")
    assert wrong_in_graph(header.parent) == ""
    return header.parent


@pytest.mark.parametrize("element", [0, 500, 999])
def test_one_bit_that_leads_past_the_end_is_seen(graph, element):
    """Whether a process that follows it dies is a matter of luck."""
    size = Header(*HEADER.unpack((graph / "header.bin").read_bytes())).element_bytes
    flip(graph / "data_level0.bin", element * size + 4, 30)  # of its first link
    assert wrong_in_graph(graph) == "a link of its graph points at nothing"
    assert "points at nothing" in store_file.complaint(graph.parent)


def test_more_links_than_there_is_room_for_are_seen(graph):
    flip(graph / "data_level0.bin", 0, 12)
    assert wrong_in_graph(graph) == "a link of its graph points at nothing"


def test_a_link_to_a_level_that_is_not_there_is_seen(graph):
    file = graph / "link_lists.bin"
    data, at = file.read_bytes(), 0
    while not int.from_bytes(data[at : at + 4], "little"):
        at += 4
    flat = at // 4 - 1 if at else next(n for n in range(999) if n != at // 4)
    changed = data[: at + 8] + flat.to_bytes(4, "little") + data[at + 12 :]
    file.write_bytes(changed)
    assert wrong_in_graph(graph) == "a link of its graph points at a level that is not there"


@pytest.mark.parametrize("name", ["data_level0.bin", "link_lists.bin"])
def test_a_graph_that_was_cut_does_not_fit(graph, name):
    file = graph / name
    file.write_bytes(file.read_bytes()[:-100])
    assert "graph" in wrong_in_graph(graph)


def test_a_graph_of_another_version_is_left_to_chroma(graph):
    flip(graph / "header.bin", 0, 3)
    flip(graph / "data_level0.bin", 4, 30)
    assert wrong_in_graph(graph) == ""
