"""Odd files, folders and numbers end in one sentence, and give nothing away."""

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from ramole_core import AdapterRefused, RamoleError, Request
from ramole_core.engine.decoding import choose_token, make_generator, skip_draws
from tests.support.adapter_files import open_pool
from tests.support.pool_fakes import SHAPES, write_adapter, write_sample
from tests.support.workers import python
from ui.parts.downloads import inert_cell


@pytest.fixture
def pool(tmp_path):
    with open_pool(tmp_path, shapes=lambda: SHAPES) as pool:
        yield pool


def refusal(pool, source, **said) -> str:
    with pytest.raises(AdapterRefused) as told:
        pool.add(source, **said)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_name_that_another_owner_has_shows_through_no_number(pool, tmp_path):
    def adapter(seed: int) -> Path:
        return write_adapter(tmp_path / f"made{len(list(tmp_path.iterdir()))}", seed=seed)

    pool.add(adapter(1), name="mine-2", owner="ann")
    pool.add(adapter(2), name="mine", owner="ben")
    assert "'mine-2' for instance" in refusal(pool, adapter(3), name="mine", owner="ben")
    pool.add(adapter(4), name="mine-2", owner="ben")
    assert "'mine-3' for instance" in refusal(pool, adapter(3), name="mine", owner="ben")


def nameless(path: Path, name: bytes) -> Path:
    """A zip with a member of another name than zipfile would write."""
    member = zipfile.ZipInfo("X" * max(1, len(name)))  # of 1980: a clock's bytes may be an X too
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"1234")
    data = path.read_bytes().replace(b"X" * max(1, len(name)), name)
    if not name:  # the lengths stand in the two headers
        data = bytearray(data)
        data[26:28] = struct.pack("<H", 0)
        at = data.index(b"PK\x01\x02")
        data[at + 28 : at + 30] = struct.pack("<H", 0)
        end = data.index(b"PK\x05\x06")
        data[end + 12 : end + 20] = struct.pack("<II", end - at, at)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", [b"", b"\0", b".", b"./."])
def test_a_member_without_a_name_is_a_sentence(pool, tmp_path, name):
    assert "a file without a name" in refusal(pool, nameless(tmp_path / "odd.zip", name))


@pytest.mark.parametrize("target", ["nowhere", "a loop", "/dev/zero"])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "README.md"])
def test_a_link_to_no_file_is_a_sentence(pool, tmp_path, file, target):
    folder = write_adapter(tmp_path / "linked")
    (folder / file).unlink(missing_ok=True)
    (folder / file).symlink_to(file if target == "a loop" else target)
    told = refusal(pool, folder)
    assert told.startswith(f"{file} is ") and "give the file itself" in told


def test_a_link_to_a_file_is_that_file(pool, tmp_path):
    folder = write_adapter(tmp_path / "linked")
    kept = folder / "adapter_model.safetensors"
    kept.rename(tmp_path / "blob")
    kept.symlink_to(tmp_path / "blob")
    assert pool.add(folder).name == "linked"


@pytest.mark.parametrize(
    ("place", "read_only"),
    [
        ("/proc/nowhere", False),  # only to read, a folder that is not there holds no uploads
        *((place, way) for place in ("/dev/null", "/dev/null/under") for way in (False, True)),
    ],
)
def test_a_data_folder_that_cannot_be_is_a_sentence(tmp_path, place, read_only):
    with pytest.raises(RamoleError, match=f"The data folder {place} cannot be used"):
        open_pool(tmp_path, data_dir=Path(place), read_only=read_only)


def test_the_page_says_so_in_one_line(tmp_path):
    place = "/dev/null"
    done = python("app.py", HOME=str(tmp_path), RAMOLE_DATA_DIR=place)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"The data folder {place} cannot be used" in done.stderr
    assert "set RAMOLE_DATA_DIR" in done.stderr


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-307, 1e-300, 1e-9])
def test_the_coldest_temperatures_are_greedy(temperature, flush):
    torch.set_flush_denormal(flush)
    try:
        logits = torch.tensor([-30.0, 2.0, 1.5, -1e4])
        request = Request("hi", temperature=temperature, seed=5)
        generator = make_generator(request)
        assert {choose_token(logits, request, generator=generator) for _ in range(20)} == {1}
        other = make_generator(request)
        skip_draws(other, request, 20)
        assert torch.equal(generator.get_state(), other.get_state()), "as many draws as tokens"
    finally:
        torch.set_flush_denormal(False)


def spoiled(folder: Path, file: str) -> None:
    with (folder / file).open("ab") as opened:
        opened.write(b" ")


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "manifest.json", "examples.jsonl"])
def test_a_spoiled_sample_says_what_its_reader_can_do(tmp_path, file):
    write_sample(tmp_path / "samples", "squad", examples=["where is the cat"])
    folder = tmp_path / "samples" / "squad"
    (folder / file).write_bytes(b"spoiled")
    with open_pool(tmp_path, shapes=lambda: SHAPES) as pool:
        (told,) = pool.problems
    assert "is damaged and left out" in told and "git checkout -- squad" in told
    assert str(tmp_path / "samples") in told and "remove" not in told


def test_a_sample_that_is_spoiled_later_says_so_too(tmp_path):
    write_sample(tmp_path / "samples", "squad", examples=["where is the cat"])
    with open_pool(tmp_path, shapes=lambda: SHAPES) as pool:
        spoiled(tmp_path / "samples" / "squad", "adapter_config.json")
        with pytest.raises(RamoleError, match="git checkout -- squad") as told:
            pool.tensors(pool.card("squad"))
        assert "remove" not in str(told.value)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_spoiled_upload_is_still_its_owners_to_remove(pool, tmp_path, file):
    card = pool.add(write_adapter(tmp_path / "mine"))
    spoiled(card.folder, file)
    with pytest.raises(RamoleError, match="changed on disk .*; remove the adapter and add it"):
        pool.tensors(card)


@pytest.mark.parametrize(
    "before", ["", " ", "   ", "\t", "\r", "\n", " \t ", "\u00a0", "\u3000", "\ufeff", "\x00"]
)
@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "＝"])
def test_no_spreadsheet_runs_a_cell_whatever_stands_before_its_sign(before, sign):
    cell = f"{before}{sign}1+1"
    assert inert_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["plain", " plain", "1 = 1", "", " ", "'=1", -3, 2.5, None])
def test_other_cells_are_as_they_were(cell):
    assert inert_cell(cell) == cell
