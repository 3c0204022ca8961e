"""The campaigns in short: a few mishaps of each kind, and nothing that was promised is broken."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaigns import honest, mutations
from tests.campaigns.__main__ import main as command
from tests.campaigns.figures import Figures, write_section
from tests.campaigns.judge import wrong_with
from tests.campaigns.small_disk import way_to_mount
from tests.support.pool_fakes import SHAPES
from tests.support.workers import REPOSITORY

SECONDS = {"health_above_1_s", "hangs_over_5_s", "first_token_twice_as_late", "hangs"}
"""What the campaigns time, on a machine that has nothing else to do."""


def judged(out: Path, name: str, status: int, failures: str) -> dict:
    """The section of this name, after the command has ended with `status`."""
    section = json.loads(out.read_text())[name]
    broken = {name for name, count in section["must_be_0"].items() if count}
    assert status == (1 if broken else 0)
    assert not broken - SECONDS, failures[-3000:]
    return section


@pytest.fixture
def campaign(tmp_path, monkeypatch, capsys) -> Iterator[Callable[..., dict]]:
    """The section that the command writes, under this name or its own, in this process: its page is
    forked off the one that has imported Gradio already."""
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", "/tmp"))  # a siege has its own
    short = {"WAIT_SECONDS": 1, "TRY_SECONDS": 0.2, "TRY_UNKNOWN_SECONDS": 0.1}
    for name, seconds in short.items():  # of refusals and of guesses, at the fake page
        monkeypatch.setenv(name, str(seconds))
    out = tmp_path / "reliability.json"

    def run(*words: str, name: str | None = None) -> dict:
        status = command([*words, "--out", str(out)])
        return judged(out, name or words[0], status, capsys.readouterr().err)

    yield run
    honest.KEY.clear()


def test_spoiled_uploads_are_refused_and_leave_nothing(campaign):
    section = campaign("uploads", "--count", "30", "--seed", "3", "--page-alone")
    happened = section["happened"]
    assert section["count"] == 30 and happened["refused"] > 10 and happened["taken"] > 3
    assert section["health_asked"] > 5


def test_one_address_that_attacks_has_nobody_refused_and_nothing_lost(campaign):
    said = ["--page-alone", "--count", "1", "--kinds", "parts,sessions"]
    section = campaign("siege", *said)
    turns = section["turns"]
    assert set(turns) == {"parts", "sessions", "all at once"}
    assert all(turn["answers"] >= 16 for turn in turns.values())
    assert set(turns["parts"]["attacker"]) & {"413", "WriteError", "ReadError"}
    assert turns["sessions"]["attacker"]["200"]
    assert section["seconds_under_attack"] == 3


def test_where_passwords_are_guessed_the_right_one_opens_from_the_same_place(campaign):
    said = ["--page-alone", "--count", "1", "--kinds", "passwords"]
    section = campaign("siege", *said, name="siege_passwords")
    turn = section["turns"]["passwords"]
    assert turn["attacker"]["401"] and turn["logins"] >= 4 and turn["answers"] >= 16


def test_mutated_requests_over_every_route_meet_no_fault(campaign):
    section = campaign("requests", "--count", "250", "--seed", "1")
    happened = section["happened"]
    assert section["count"] == 250 and happened["status_4xx"] > 60 and happened["status_2xx"] > 20
    assert sum(many for name, many in happened.items() if name.startswith("status_")) == 250
    assert section["must_be_0"]["routes_never_asked"] == 0


def unexplained(makefile: str) -> list[str]:
    """Ids that `make audit` passes over and that have no reason in the Makefile."""
    (ignored,) = re.findall(r"^IGNORED :=(.*)$", makefile, re.MULTILINE)
    explained = re.findall(r"^# (\S+): \S.*\.$", makefile, re.MULTILINE)
    return [one for one in ignored.split() if one not in explained]


def test_each_fault_that_the_audit_passes_over_has_its_reason():
    assert unexplained((REPOSITORY / "Makefile").read_text("utf-8")) == []
    assert unexplained("# CVE-1: We never call it.\nIGNORED := CVE-1 CVE-2\n") == ["CVE-2"]


def test_a_small_disk_loses_nothing(tmp_path):
    before = way_to_mount()
    if before is None:
        pytest.skip("nobody may mount here; laws/test_pool_disk.py makes the disk fail otherwise")
    out = tmp_path / "reliability.json"
    words = ("disk", "--count", "4", "--seed", "2", "--out", str(out))
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.campaigns", *words],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert out.exists(), done.stderr[-3000:] + done.stdout[-2000:]
    section = judged(out, "disk", done.returncode, done.stderr)
    assert any(name.endswith("refused") for name in section["happened"])


def test_a_campaign_repeats_itself():
    one, two = ([mutations.made(n, seed=4, shapes=SHAPES)[0] for n in range(40)] for _ in "ab")
    assert one == two and len(set(one)) > 8


def spoil_tensors(folder: Path) -> None:
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-4:] = b"\x00\x00\x80\x7f"  # infinity
    (folder / "adapter_model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "zipped", "reason"),
    [
        (lambda folder: None, {}, ""),
        (spoil_tensors, {}, "NaN or Inf"),
        (lambda f: (f / "adapter_config.json").write_text('{"r": 2, "r": 3}'), {}, "twice"),
        (lambda f: (f / "adapter_config.json").write_text('{"use_dora": true}'), {}, "use_dora"),
        (lambda f: (f / "more.bin").write_bytes(b"x"), {}, "more.bin"),
        (lambda folder: None, {"adapter_config.json": b"{}"}, "not what the zip holds"),
    ],
)
def test_the_judge_sees_what_is_wrong(tmp_path, spoil, zipped, reason):
    folder = tmp_path / "a"
    folder.mkdir()
    for name, data in mutations.sound_files(random.Random(3), SHAPES).items():
        (folder / name).write_bytes(data)
    spoil(folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = wrong_with(folder, mutations.zip_of(files | zipped), shapes=SHAPES)
    assert (found == "") if not reason else reason in found


def test_a_broken_promise_is_counted_and_one_section_leaves_the_others(tmp_path):
    figures = Figures(("hangs",))
    assert figures.sound and figures.record()["must_be_0"] == {"hangs": 0}
    figures.failed("hangs", "number 3")
    assert not figures.sound and figures.record()["must_be_0"] == {"hangs": 1}
    write_section(tmp_path / "r.json", "a", {"count": 1})
    write_section(tmp_path / "r.json", "b", {"count": 2})
    write_section(tmp_path / "r.json", "a", {"count": 3})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": {"count": 3}, "b": {"count": 2}}
