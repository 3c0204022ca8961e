"""A data folder that the version before the rooms wrote opens, is found in and answers, unchanged.

`tests/data/data_dir_of_2026_11_25.zip` was written by commit f34d064: two uploads (one shared, one
of a session), their index, and the packed units of one.
"""

import shutil
from pathlib import Path

import pytest

from ramole_core import Ramole, Request, Settings

ARCHIVE = Path(__file__).parents[1] / "data" / "data_dir_of_2026_11_25.zip"


@pytest.fixture
def old(tmp_path, real_base_folder):
    shutil.unpack_archive(ARCHIVE, tmp_path / "data")
    kept = Settings().data_dir / "reference"  # what the base answers usually, by its checksum
    kept.mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "reference").symlink_to(kept, target_is_directory=True)
    return Settings(
        base_model=str(real_base_folder),
        adapters_dir=tmp_path / "none",
        data_dir=tmp_path / "data",
        device="cpu",
        quantization="nf4",  # as it was then
    )


def test_an_old_data_folder_opens_and_answers(old):
    before = {
        file.relative_to(old.data_dir): file.read_bytes()
        for file in (old.data_dir / "uploads").rglob("*")
        if file.is_file()
    }
    assert len(before) == 8
    with Ramole(old) as ramole:
        assert {card.name for card in ramole.pool.all_cards()} == {"tides", "knots"}
        assert [card.name for card in ramole.pool.cards()] == ["tides"], "knots is a session's"
        report = ramole.retriever.check()
        assert (report.rebuilt, report.removed) == (None, ())
        assert report.kept == 2, "its vectors are those of today's encoder"
        packed = ramole.engine.stats()["host_packs"]  # once it is loaded
        answer = ramole.generate([Request("How high is the tide?", "mixture", max_new_tokens=4)])[0]
        assert answer.adapters == ["tides"] and answer.text == "The tide is indeed"
        stats = ramole.engine.stats()
        assert (packed, stats["host_packs"]) == (1, 1), "packed anew, as today"
    after = {file: (old.data_dir / file).read_bytes() for file in before}
    assert after == before
