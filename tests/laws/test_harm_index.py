"""A damaged index never ends the process that opens it: another one looks first."""
# ruff: noqa: F811

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from ramole_core.retrieval import examination, store
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.index import AdapterIndex
from tests.core.test_retrieval_index import STORED as N, entry, stored as whole  # noqa: F401  a fixture
from tests.support.retrieval_fakes import D
from tests.support.workers import python

START = """
import sys
from pathlib import Path
from tests.laws.test_harm_index import *
for said in sys.argv[2:]:
    root = Path(sys.argv[1]) / said
    index = AdapterIndex(data_dir=root)
    if said.endswith("open"):
        assert len(index.read()) == N
    spoil_graph(root / "chroma")
    try:
        index.upsert({"pool/new": entry(np.ones(D))})
    except IndexBroken as error:
        print(said, error)
        index.wipe()
    index.close()
    print(len(AdapterIndex(data_dir=root).read()))
"""


@pytest.fixture
def root(whole, tmp_path) -> Path:
    shutil.copytree(whole / "chroma", tmp_path / "chroma")
    return tmp_path


@pytest.fixture
def looks(monkeypatch):
    """The folders at which another process looked."""
    seen = []
    look = examination._fault

    def looked(folder: Path, fresh: Path) -> str:
        seen.append(folder)
        return look(folder, fresh)

    monkeypatch.setattr(examination, "_fault", looked)
    return seen


def spoil_graph(chroma: Path) -> None:
    (file,) = chroma.glob("*/data_level0.bin")
    file.write_bytes(b"\xff" * file.stat().st_size)


def spoil_page(chroma: Path) -> None:
    with (chroma / "chroma.sqlite3").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\x5a" * 4096)


def test_no_damage_ends_the_process_that_has_the_index(whole, tmp_path):
    cases = ["spoil_graph-closed", "spoil_graph-open"]
    for said in cases:
        shutil.copytree(whole / "chroma", tmp_path / said / "chroma")
    done = python("-c", START, str(tmp_path), *cases)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = done.stdout.strip().splitlines()
    assert lines[1::2] == ["0"] * len(cases)
    for said, told in zip(cases, lines[::2], strict=True):
        assert told.startswith(said) and "is broken" in told and "rebuilt from the pool" in told


def flip_a_vector(chroma: Path) -> None:
    """Nothing is broken, and yet it is another vector."""
    (file,) = chroma.glob("*/data_level0.bin")
    index = AdapterIndex(data_dir=chroma.parent)
    vector = index.read(["pool/a7"])["pool/a7"].vector
    index.close()
    numbers = np.fromfile(file, np.float32)
    rows = np.lib.stride_tricks.sliding_window_view(numbers, D)
    (place,) = np.flatnonzero(np.isclose(rows, vector / np.linalg.norm(vector)).all(1))
    numbers[place + 5] *= -1
    numbers.tofile(file)


def change_lengths(chroma: Path) -> None:
    """Chroma keeps them apart from the directions."""
    (file,) = chroma.glob("*/length.bin")
    file.write_bytes(np.full(file.stat().st_size // 4, 1e30, np.float32).tobytes())


@pytest.mark.parametrize("change", [flip_a_vector, change_lengths])
def test_a_vector_that_is_another_one_is_seen(root, change):
    change(root / "chroma")
    with pytest.raises(IndexBroken, match="other vectors than were written"):
        AdapterIndex(data_dir=root).read()


def test_an_examination_that_takes_too_long_is_a_broken_index(root, monkeypatch):
    (root / "chroma" / examination.MARK).unlink()
    monkeypatch.setattr(examination, "MAX_SECONDS", 0.01)
    monkeypatch.setattr(examination, "MAX_SECONDS_PER_MB", 0)
    with pytest.raises(IndexBroken, match="takes more than 0 s"):
        AdapterIndex(data_dir=root).read()


def test_a_link_that_leads_past_the_end_is_followed_by_nobody(root, looks):
    """Whether a process that follows it dies is a matter of luck: what could be read is written
    anew, and the vectors stay."""
    (file,) = (root / "chroma").glob("*/data_level0.bin")
    before = AdapterIndex(data_dir=root)
    vectors = before.read()
    before.close()
    rows = np.fromfile(file, np.uint32)
    each = len(rows) // 1000  # what lies on disk; the others are in Chroma's log
    rows[1::each] |= 1 << 20  # the first link of each
    rows.tofile(file)
    index = AdapterIndex(data_dir=root)
    try:
        found = index.read()
    except IndexBroken as error:  # it died of a link when it read the log
        assert "ends a process" in str(error)
    else:
        assert set(found) == set(vectors)
        for key, one in found.items():
            np.testing.assert_allclose(one.vector, vectors[key].vector, rtol=1e-5)
        (file,) = (root / "chroma").glob("*/data_level0.bin")
        links = np.fromfile(file, np.uint32)[1 :: len(rows) // 1000]
        assert (links < N).all()
        index.upsert({"pool/new": entry(np.ones(D))})
    assert looks == [root / "chroma"]
    index.close()


def test_ordinary_use_is_not_taken_for_damage(root, looks, monkeypatch):
    opened, open_folder = [], store.open_folder

    def counted(folder: Path):
        opened.append(folder)
        return open_folder(folder)

    monkeypatch.setattr(store, "open_folder", counted)
    index = AdapterIndex(data_dir=root)
    for n in range(3):
        vectors = np.eye(D)[np.arange(700) % D]
        entries = {f"pool/b{n}.{i}": entry(vector) for i, vector in enumerate(vectors)}
        index.upsert(entries)
        index.read(["pool/a1"])
        index.query(np.ones(D, np.float32), k=2, among={"pool/a1", "pool/a2"})
        index.delete([key for key in entries if key.endswith("7")])
        time.sleep(0.02)
    assert len(index.read()) == N + 3 * 630 and len(opened) == 1
    index.close()
    again = AdapterIndex(data_dir=root)
    assert len(again.read()) == N + 3 * 630
    again.close()
    assert looks == [], "what was closed in order is opened at once"


def test_what_a_kill_left_is_looked_at_once(root, looks):
    index = AdapterIndex(data_dir=root)
    index.upsert({"pool/new": entry(np.ones(D))})
    killed = root / "killed"
    shutil.copytree(root / "chroma", killed / "chroma")  # as it lies on disk now
    index.close()
    other = AdapterIndex(data_dir=killed)
    for _ in range(2):
        assert len(other.read()) == N + 1 and looks == [killed / "chroma"]
    other.close()
    assert os.listdir(killed) == ["chroma"]


def test_a_kill_between_the_two_renames_loses_nothing(root, looks):
    os.rename(root / "chroma", root / "chroma.fresh")
    (root / "chroma.gone").mkdir()
    index = AdapterIndex(data_dir=root)
    assert len(index.read()) == N and looks == []
    index.close()
    assert os.listdir(root) == ["chroma"]


def test_an_index_that_broke_is_not_taken_for_sound(root, looks):
    spoil_page(root / "chroma")
    index = AdapterIndex(data_dir=root)
    with pytest.raises(IndexBroken):
        index.read()
    index.close()
    with pytest.raises(IndexBroken):
        AdapterIndex(data_dir=root).read()
    assert len(looks) == 2
