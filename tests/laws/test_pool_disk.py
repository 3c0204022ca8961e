"""A disk that is full or fails, at every step of every change: all of it happened, or nothing."""

import builtins
import errno
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from ramole_core import AdapterRefused
from ramole_core.pool import Pool
from tests.support.adapter_files import open_pool, tree_of, write_adapter

CHANGES = {
    "add": lambda pool, root: pool.add(root / "new", name="new", examples=["a", "b"], owner="bob"),
    "add in place of a damaged one": lambda pool, root: pool.add(root / "new", name="damaged"),
    "remove": lambda pool, root: pool.remove("old"),
    "remove for a while": lambda pool, root: pool.set_aside("old"),
    "remove a damaged one": lambda pool, root: pool.remove("damaged"),
    "set_examples": lambda pool, root: pool.set_examples("old", ["y", "z"]),
}
TAKES_SPACE = ("mkdir", "link", "fsync", "open", "write")
"""What fails on a full disk; names are taken away and changed without space."""
EVERYTHING = (*TAKES_SPACE, "rename", "replace", "unlink", "rmdir")


@contextmanager
def failing_disk(kinds: tuple[str, ...], code: int, *, first: int = 1, alone: bool = False):
    """Calls of `kinds` fail from number `first` on, or that one alone; yields their count."""
    seen = [0]

    def call(kind: str) -> None:
        if kind in kinds:
            seen[0] += 1
            if seen[0] == first or seen[0] > first and not alone:
                raise OSError(code, os.strerror(code))

    def failing(kind: str, plain):
        def wrapped(*args, **kwargs):
            call(kind)
            return plain(*args, **kwargs)

        return wrapped

    def opened(file, mode="r", *args, plain=builtins.open, **kwargs):
        if mode.startswith("r"):
            return plain(file, mode, *args, **kwargs)
        call("open")
        return _Filling(plain(file, mode, *args, **kwargs), call)

    with pytest.MonkeyPatch.context() as patches:
        for name in set(EVERYTHING) - {"open", "write"}:
            patches.setattr(os, name, failing(name, getattr(os, name)))
        patches.setattr(builtins, "open", opened)
        patches.setattr(io, "open", opened)
        yield seen


class _Filling:
    """An open file whose writes are counted, and fail, as other calls do."""

    def __init__(self, file, call):
        self._file, self._call = file, call

    def write(self, data):
        self._call("write")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)


def make_pool(root: Path) -> Pool:
    """Holds `old` and, as a folder that has lost its manifest, `damaged`; made anew each time."""
    if not (root / "data as made").exists():
        for seed, name in enumerate(("old", "damaged", "new")):
            write_adapter(root / name, seed=seed)
        with open_pool(root) as pool:
            for name in ("old", "damaged"):
                damaged = pool.add(root / name, examples=["x"])
        (damaged.folder / "manifest.json").unlink()
        shutil.copytree(root / "data", root / "data as made")
    shutil.rmtree(root / "data")
    shutil.copytree(root / "data as made", root / "data")
    return open_pool(root)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Nobody cuts the power of a test."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def keys(pool: Pool) -> set[tuple[str, tuple[str, ...]]]:
    return {(card.key, card.examples) for card in pool.all_cards()}


@pytest.mark.parametrize("alone", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize(
    ("kinds", "code"),
    [(TAKES_SPACE, errno.ENOSPC), (EVERYTHING, errno.EIO)],
    ids=["full", "broken"],
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_failing_disk_leaves_all_or_nothing(tmp_path, change, kinds, code, alone):
    step, refused, done = 0, 0, 0
    while True:
        step += 1
        pool = make_pool(tmp_path)
        before, cards = tree_of(tmp_path / "data"), keys(pool)
        with failing_disk(kinds, code, first=step, alone=alone) as seen:
            try:
                CHANGES[change](pool, tmp_path)
            except AdapterRefused as error:
                refused, said = refused + 1, error
            else:
                done, said = done + 1, None
        after = keys(pool)
        if said is not None:
            text = str(said)
            assert os.strerror(code) in text and text.endswith(".") and text.isprintable(), text
            assert "\n" not in text and str(tmp_path) not in text
            assert after == cards
            if kinds == TAKES_SPACE:
                assert tree_of(tmp_path / "data") == before, (step, text)
        pool.close()
        with open_pool(tmp_path) as again:
            assert keys(again) == after, (step, said)
            assert len(again.problems) == (0 if "damaged" in change and said is None else 1)
            if said is not None:
                assert tree_of(tmp_path / "data") == before, (step, said)
            data = tmp_path / "data"
            left = [*data.rglob(".*"), *(data / "staging").glob("*")]
            assert left == [], (step, left)
        if seen[0] < step:
            assert said is None
            break
    assert done > 0
    if "remove" not in change or kinds == EVERYTHING:
        assert refused > 0


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("change", CHANGES)
def test_a_disk_that_takes_nothing_says_so(tmp_path, change, code):
    state = "is full" if code == errno.EDQUOT else "cannot be used"
    sentence = f"disk {state} .{os.strerror(code)}."
    with make_pool(tmp_path) as pool:
        before, cards = tree_of(tmp_path / "data"), keys(pool)
        with failing_disk(EVERYTHING, code), pytest.raises(AdapterRefused, match=sentence):
            CHANGES[change](pool, tmp_path)
        assert tree_of(tmp_path / "data") == before and keys(pool) == cards


def test_removing_needs_no_space(tmp_path):
    with make_pool(tmp_path) as pool, failing_disk(TAKES_SPACE, errno.ENOSPC):
        with pytest.raises(AdapterRefused, match="disk is full .No space left on device."):
            pool.add(tmp_path / "new")
        pool.remove("old")
        pool.remove("damaged")
        assert pool.all_cards() == []
    assert tree_of(tmp_path / "data") == {}
    with open_pool(tmp_path) as again:
        assert again.all_cards() == [] and again.problems == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_listener_without_space_is_one_sentence_too(tmp_path, change):
    full = OSError(errno.ENOSPC, "No space left on device")
    with make_pool(tmp_path) as pool:
        before, cards = tree_of(tmp_path / "data"), keys(pool)
        pool.listeners.append(Mock(added=Mock(side_effect=full), removed=Mock(side_effect=full)))
        if "remove" in change:
            CHANGES[change](pool, tmp_path)  # it is gone; the index finds out by itself
            assert tree_of(tmp_path / "data") != before
        else:
            with pytest.raises(AdapterRefused, match="disk is full"):
                CHANGES[change](pool, tmp_path)
            assert tree_of(tmp_path / "data") == before and keys(pool) == cards


def test_an_adapter_whose_files_are_gone_can_be_removed(tmp_path):
    with make_pool(tmp_path) as pool:
        folder = pool.card("old").folder
        folder.rename(tmp_path / "elsewhere")
        pool.remove("old")
        assert pool.all_cards() == []


def test_cleaning_up_goes_on_past_what_fails(tmp_path, monkeypatch):
    make_pool(tmp_path).close()
    data = tmp_path / "data"
    staging, uploads = data / "staging", data / "uploads"
    for name in ("a", "z"):  # half-built; and uploads on their way out and back
        (staging / name).mkdir(parents=True)
        (uploads / "everyone" / f".{name}").mkdir()
    (uploads / "everyone" / "old").rename(staging / "everyone.old.old")
    write_adapter(staging / "everyone.lost.old")
    write_adapter(staging / "everyone.more.old")
    plain_rename, plain_rmdir = os.rename, os.rmdir

    def rename(source, target, **more):
        if "lost" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        plain_rename(source, target, **more)

    def rmdir(path, **more):
        if str(path).endswith("a"):
            raise OSError(errno.EIO, "Input/output error")
        plain_rmdir(path, **more)

    with monkeypatch.context() as patches:
        patches.setattr(os, "rename", rename)
        patches.setattr(os, "rmdir", rmdir)
        with open_pool(tmp_path) as pool:
            assert {card.name for card in pool.all_cards()} == {"old"}
            problems = " ".join(pool.problems)
    assert "'lost' could not be put back (No space left on device)" in problems
    assert str(staging / "a") in problems and str(uploads / "everyone/.a") in problems
    assert sorted(path.name for path in staging.iterdir()) == ["a", "everyone.lost.old"]
    left = {path.name for path in (uploads / "everyone").iterdir()}
    assert left == {".a", "damaged", "more", "old"}
    with open_pool(tmp_path):
        assert not staging.exists() and (uploads / "everyone" / "lost").is_dir()


def test_what_could_not_be_deleted_does_not_come_back(tmp_path):
    """An earlier self of an adapter, left over by `set_examples`, after the adapter is removed."""
    with make_pool(tmp_path) as pool, failing_disk(("unlink", "rmdir"), errno.EIO):
        pool.set_examples("old", ["y"])
        pool.set_examples("old", ["z"])
        pool.remove("old")
    with open_pool(tmp_path) as again:
        assert again.all_cards() == []
        assert not (tmp_path / "data/staging").exists()


def test_an_upload_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    make_pool(tmp_path).close()
    plain = Path.read_bytes

    def read_bytes(path):
        if path.name == "examples.jsonl":
            raise OSError(errno.EIO, "Input/output error")
        return plain(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with open_pool(tmp_path) as pool:
        assert pool.all_cards() == []
        assert any("old" in problem and "Input/output" in problem for problem in pool.problems)
