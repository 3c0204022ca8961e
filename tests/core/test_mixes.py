"""Mixes on disk: kept by name for an owner, refused where an adapter is another one now."""

import errno
import json
import os
from pathlib import Path

import pytest

from ramole_core import DEFAULT_METHOD, Fitting, Generation, RamoleError, Request
from ramole_core.mixes import Mixes

FOUND = Fitting("lorahub", ("ant", "bee"), ("1a", "2b"), 40, 40, (1.25, -0.5), 1.5, 2.0, 9.0)


def answer(fitted=FOUND):
    return Generation("yes", ["ant", "bee"], [0.1, 0.2], None, "eos", 3, 1, 0.1, 0.1, fitted=fitted)


HERE = {"ant": "1a", "bee": "2b", "cat": "3c"}


def test_a_mix_is_kept_listed_asked_with_and_forgotten(tmp_path):
    kept = Mixes(tmp_path).keep("My Spam!", answer(), None)
    mixes = Mixes(tmp_path)  # as another process reads it
    assert mixes.all("ann") == [kept] == mixes.all(None) and kept.name == "my-spam"
    asked = Request("hi", mix="my-spam", max_new_tokens=7, owner="ann")
    assert mixes.get("my-spam", "ann").request(asked, HERE) == Request(
        "hi",
        method="lorahub",
        adapters=("ant", "bee"),
        weights=(1.25, -0.5),
        max_new_tokens=7,
        owner="ann",
    )
    mixes.remove("my-spam", None)
    assert mixes.all(None) == [] and not list(tmp_path.iterdir()), "nothing is left"


def test_owners_have_mixes_of_their_own(tmp_path):
    mixes = Mixes(tmp_path)
    mixes.keep("spam", answer(), None)
    mixes.keep("spam", answer(Fitting(*list(vars(FOUND).values())[:6] + [1.0, 2.0, 9.0])), "ann")
    assert [mix.loss for mix in mixes.all("ann")] == [1.0]
    assert [mix.loss for mix in mixes.all("bob")] == [1.5]
    with pytest.raises(RamoleError, match="no mix 'spam' to remove"):
        mixes.remove("spam", "bob")


@pytest.mark.parametrize(
    ("here", "method", "reason"),
    [
        ({"ant": "1a"}, DEFAULT_METHOD, "has the adapter bee, which is no longer in the pool; put"),
        (
            {"ant": "9z", "bee": "2b"},
            DEFAULT_METHOD,
            "has the adapter ant, which is another one now",
        ),
        (HERE, "fusion", "is of method lorahub, and the request says fusion; leave the method out"),
    ],
)
def test_a_mix_that_cannot_be_used_is_one_sentence(tmp_path, here, method, reason):
    mixes = Mixes(tmp_path)
    mixes.keep("spam", answer(), None)
    with pytest.raises(RamoleError, match=reason):
        mixes.get("spam", None).request(Request("hi", mix="spam", method=method), here)
    asked = Request("hi", mix="spam", method="lorahub")
    assert mixes.get("spam", None).request(asked, HERE).weights == (1.25, -0.5)


def test_what_cannot_be_kept_or_found_is_one_sentence(tmp_path, monkeypatch):
    mixes = Mixes(tmp_path)
    with pytest.raises(RamoleError, match="no weights that were found, so there is nothing"):
        mixes.keep("spam", answer(None), None)
    with pytest.raises(RamoleError, match="There is no mix 'spam'; none was kept yet"):
        mixes.get("spam", None)
    mixes.keep("spam", answer(), None)
    with pytest.raises(RamoleError, match="a mix spam already; remove it"):
        mixes.keep("SPAM", answer(), None)
    with pytest.raises(RamoleError, match="did you mean 'spam'"):
        mixes.get("span", None)
    with pytest.raises(RamoleError, match="There is no mix '../spam'"):
        mixes.get("../spam", None)
    monkeypatch.setattr("ramole_core.mixes.MAX_MIXES", 1)
    with pytest.raises(RamoleError, match="1 mixes are kept, the most"):
        mixes.keep("more", answer(), None)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said | {"weights": [1, "x"]},
        lambda said: said | {"weights": [1.0, float("nan")]},
        lambda said: said | {"weights": [1.0]},
        lambda said: said | {"adapters": ["ant", "ant"]},
        lambda said: said | {"method": "nothing"},
        lambda said: [said],
        lambda said: {},
    ],
)
def test_a_broken_file_is_no_mix(tmp_path, change):
    mixes = Mixes(tmp_path)
    mixes.keep("spam", answer(), None)
    (file,) = tmp_path.rglob("*.json")
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert mixes.all(None) == []


def test_an_owner_takes_its_mixes_along_and_leaves_nothing(tmp_path):
    mixes = Mixes(tmp_path)
    for name, owner in (("one", "ann"), ("two", "ann"), ("three", "ben"), ("all", None)):
        mixes.keep(name, answer(), owner)
    assert Mixes(tmp_path).owners() == {"ann", "ben"}
    assert mixes.remove_all("ann") == 2 and mixes.remove_all("ann") == 0
    assert mixes.owners() == {"ben"} and [mix.name for mix in mixes.all("ann")] == ["all"]
    assert mixes.remove_all("ben") == 1
    mixes.remove("all", None)
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_another_owner_is_not_believed(tmp_path):
    mixes = Mixes(tmp_path)
    mixes.keep("one", answer(), "ann")
    (file,) = (tmp_path / "mixes").glob("*/*.json")
    for owner in ("ben", None, 7, ""):
        file.write_text(json.dumps({**json.loads(file.read_text()), "owner": owner}))
        assert mixes.owners() == set()


@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_a_full_disk_keeps_no_mix_and_says_so(tmp_path, monkeypatch, step):
    def full(*words, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    mixes = Mixes(tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(os if step == "replace" else Path, step, full)
        with pytest.raises(RamoleError, match="disk is full .*so the mix was not kept") as told:
            mixes.keep("spam", answer(), "ann")
    assert str(tmp_path) not in str(told.value) and mixes.all("ann") == []
    assert not list(tmp_path.iterdir()), "nothing is left"
    mixes.keep("spam", answer(), "ann")
    with monkeypatch.context() as patches:
        patches.setattr(Path, "unlink", full)
        with pytest.raises(RamoleError, match="so the mix was not removed"):
            mixes.remove("spam", "ann")
    assert len(mixes.all("ann")) == 1
