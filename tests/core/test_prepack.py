"""Adapters without examples are packed while nothing runs, and leave nothing behind."""
# ruff: noqa: F811

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ramole_core import Request, prepack
from ramole_core.base.shapes import read_shapes
from ramole_core.prepack import Prepack
from tests.core.test_ramole import ASK, ramole as ramole, write_lora  # noqa: F401  the fixture
from tests.support.learn_page import card
from tests.support.serving import wait_until

SOON = 120.0


def one(name, *, examples=(), owner=None):
    return replace(card(name), sha256=name, examples=examples, owner=owner)


@dataclass
class FakeEngines:
    """Packs names; waits for `go` first."""

    idle: bool = True
    packed: list[str] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)

    def pack(self, candidate):
        assert self.go.wait(SOON)
        if candidate == "broken":
            raise OSError("no space left")
        self.packed.append(candidate)


@pytest.fixture
def packing():
    made = Prepack(lambda one: one.name, folder=Path.cwd())
    yield made
    made.close()


def test_those_without_examples_are_packed_in_order_and_a_fault_ends_only_itself(packing):
    engines = FakeEngines()
    engines.go.set()
    packing.start(engines, [one("a"), one("shown", examples=("x",)), one("broken")])
    packing.added(one("b"))
    packing.added(one("shown too", examples=("x",)))
    assert packing.wait(SOON) and engines.packed == ["a", "b"]


def test_nothing_is_packed_while_a_request_runs_and_what_is_removed_meanwhile_never(packing):
    engines = FakeEngines(idle=False)
    engines.go.set()
    packing.start(engines, [one("a"), one("b")])
    assert not packing.wait(0.2) and engines.packed == []
    packing.removed(one("a"))
    engines.idle = True
    assert packing.wait(SOON) and engines.packed == ["b"]


def test_what_two_added_is_packed_though_one_of_them_removes_it(packing):
    engines = FakeEngines(idle=False)
    engines.go.set()
    packing.start(engines, [one("a", owner="ann"), one("a", owner="bob")])
    packing.removed(one("a", owner="ann"))
    engines.idle = True
    assert packing.wait(SOON) and engines.packed == ["a"]


def test_the_last_of_the_disk_is_left(packing, monkeypatch):
    monkeypatch.setattr(prepack, "MIN_FREE_BYTES", 2**62)
    engines = FakeEngines()
    engines.go.set()
    packing.start(engines, [one("a")])
    assert packing.wait(SOON) and engines.packed == []


def test_a_removal_waits_for_the_adapter_that_is_packed_now(packing, monkeypatch):
    monkeypatch.setattr(prepack, "MAX_WAIT_SECONDS", 3600.0)
    engines = FakeEngines()
    packing.start(engines, [one("a"), one("b")])
    wait_until(lambda: packing._now == one("a").content)
    packing.removed(one("b"))  # at once
    removal = threading.Thread(target=packing.removed, args=[one("a")])
    removal.start()
    removal.join(0.2)
    assert removal.is_alive()
    engines.go.set()
    removal.join(SOON)
    assert not removal.is_alive() and engines.packed == ["a"]


def test_the_first_prompt_finds_an_upload_packed_and_its_file_goes_with_it(ramole, tmp_path):
    ramole.load()
    shapes = read_shapes(Path(ramole.settings.base_model))
    folder = write_lora(tmp_path / "file", shapes, rank=4, seed=78)
    added = ramole.pool.add(folder, name="quiet", owner="eve", examples=[])
    try:
        assert ramole.packing.wait(SOON)
        units = ramole.settings.data_dir / "units"
        assert len(list(units.glob(f"{added.content}-*"))) == 1
        asked = Request("Will it snow?", method="ramole_plus", k=9, owner="eve", abstain=False)
        asked = replace(asked, **ASK)
        ramole.candidates([replace(asked, exclude=["quiet"])])  # which packs the others
        before = ramole.engine.store.packs
        (found,) = ramole.candidates([asked])
        assert "quiet" in {one.name for one in found}
        assert ramole.engine.store.packs == before
    finally:
        ramole.pool.remove("quiet", owner="eve")
    assert not list(units.glob(f"{added.content}-*"))
