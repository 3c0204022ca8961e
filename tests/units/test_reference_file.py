"""The reference's inputs on disk: read once, found bit for bit, and never another base's."""

from pathlib import Path

import pytest
import torch

from ramole_core.engine.engine import EngineSizes
from ramole_core.engine.prompt_reader import PromptReader
from ramole_core.engine.reference import remembered
from tests.support.tiny_engine import TinyEngine

PROMPTS = [[1, 2, 3], [4]]


class Reader:
    """Numbers of its own for every prompt, and how often it was asked."""

    def __init__(self):
        self.asked = 0

    def read(self, prompts):
        self.asked += 1
        every = [torch.tensor([[sum(ids), len(ids)] for ids in prompts]).float().sqrt()]
        return [*every, torch.full((2, 3), float(self.asked))]


def test_what_was_read_is_found_to_the_bit(tmp_path: Path):
    reader = Reader()
    find = remembered(reader.read, folder=tmp_path / "new", what="a base")
    first, again = find(PROMPTS), find(PROMPTS)
    other = remembered(reader.read, folder=tmp_path / "new", what="a base")(PROMPTS)
    assert reader.asked == 1 and len(first) == 2
    for one in (again, other):
        assert all(torch.equal(a, b) for a, b in zip(first, one, strict=True))


def test_other_prompts_another_base_and_no_folder_are_read(tmp_path: Path):
    reader = Reader()
    remembered(reader.read, folder=tmp_path, what="a base")(PROMPTS)
    remembered(reader.read, folder=tmp_path, what="a base")(PROMPTS[:1])
    remembered(reader.read, folder=tmp_path, what="another base")(PROMPTS)
    assert reader.asked == 3
    remembered(reader.read, folder=None, what="a base")(PROMPTS)
    assert reader.asked == 4


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_file_is_read_anew_and_an_unwritable_folder_is_no_fault(tmp_path: Path, damage):
    reader = Reader()
    find = remembered(reader.read, folder=tmp_path / "here", what="a base")
    if damage is None:
        (tmp_path / "here").write_text("a file in the folder's place", encoding="utf-8")
    else:
        find(PROMPTS)
        (file,) = (tmp_path / "here").iterdir()
        file.write_bytes(damage)
    before = reader.asked
    assert len(find(PROMPTS)) == 2 and reader.asked == before + 1


def test_a_second_start_reads_no_prompt(tiny_llama: Path, tmp_path: Path, monkeypatch):
    sizes = EngineSizes(reference_dir=tmp_path)
    first = TinyEngine(tiny_llama, sizes)
    usual = first.engine.store.measure
    monkeypatch.setattr(PromptReader, "ends", lambda *_, **__: pytest.fail("read again"))
    second = TinyEngine(tiny_llama, sizes).engine.store.measure
    assert usual is not None and second is not None
    for one, other in zip(usual.__self__._inputs, second.__self__._inputs, strict=True):
        assert torch.equal(one, other)
