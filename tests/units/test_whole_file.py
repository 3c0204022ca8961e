"""A file or folder is written whole or not at all."""

import os
import time
from pathlib import Path

import pytest

from ramole_core import RamoleError
from ramole_core.whole_file import LEFT_SECONDS, creating, replacing


@pytest.mark.parametrize("synced", [False, True])
def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path, synced: bool) -> None:
    file = tmp_path / "new" / "a.json"
    for text in ("one", "two"):
        with replacing(file, synced=synced) as part:
            part.write_text(text)
            assert not file.exists() or file.read_text() == "one"
        assert file.read_text() == text and os.listdir(file.parent) == ["a.json"]


@pytest.mark.parametrize("write", [replacing, creating])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize(("error", "told"), [(OSError(28, "full"), "full"), (KeyError("a"), "a")])
def test_whatever_goes_wrong_nothing_is_left(tmp_path, write, kind, error, told) -> None:
    with pytest.raises((type(error), RamoleError), match=told), write(tmp_path / "a") as part:
        part.mkdir() if kind == "folder" else part.write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_only_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    killed, running, other = (tmp_path / f".{name}.part" for name in ("a[1].k", "a[1].r", "a1.k"))
    for left in (killed, running, other):
        left.write_text("half")
    old = time.time() - LEFT_SECONDS - 60
    os.utime(killed, (old, old))
    os.utime(other, (old, old))
    with replacing(tmp_path / "a[1]") as part:
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [".a1.k.part", ".a[1].r.part", "a[1]"]


def test_what_is_there_is_refused_before_and_after(tmp_path: Path) -> None:
    with pytest.raises(RamoleError, match="is there already"), creating(tmp_path):
        raise AssertionError("not reached")
    with pytest.raises(RamoleError, match="There is no folder"), creating(tmp_path / "x" / "y"):
        raise AssertionError("not reached")
    with (
        pytest.raises(RamoleError, match="is there already"),
        creating(tmp_path / "late") as part,
    ):
        part.write_text("mine")
        (tmp_path / "late").write_text("another's")
    assert (tmp_path / "late").read_text() == "another's" and os.listdir(tmp_path) == ["late"]
