"""The campaigns in short: a few mishaps of each kind, and nothing that was promised is broken."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from ramole_core.settings import Settings
from tests.adapter_files import write_adapter
from tests.campaigns import (
    attacks,
    honest,
    mutations,
    requests as mutated,
    siege,
    upload as upload_file,
)
from tests.campaigns.__main__ import COUNTS, main as command
from tests.campaigns.figures import Figures, write_section
from tests.campaigns.judge import wrong_with
from tests.campaigns.small_disk import way_to_mount
from tests.pool_fakes import SHAPES
from ui.api.mcp import TOOLS
from ui.middleware.routes import RULES, UNUSED, rules
from ui.openai.embeddings import read_texts
from ui.session.address import source

REPOSITORY = Path(__file__).parents[1]
SECONDS = {"health_above_1_s", "hangs_over_5_s", "first_token_twice_as_late", "hangs"}
"""What the campaigns time, on a machine that has nothing else to do."""
CAMPAIGN = [sys.executable, "-m", "tests.campaigns"]


def campaign(
    tmp_path: Path, *words: str, before: list[str] | None = None, name: str | None = None
) -> dict:
    """The section that the command writes, under this name or its own; it has to end with 0, but
    for what is timed."""
    out = tmp_path / "reliability.json"
    done = subprocess.run(
        [*(before or []), *CAMPAIGN, *words, "--out", str(out)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert out.exists(), done.stderr[-3000:] + done.stdout[-2000:]
    return judged(out, name or words[0], done.returncode, done.stderr)


def judged(out: Path, name: str, status: int, failures: str) -> dict:
    """The section of this name, after the command has ended with `status`."""
    section = json.loads(out.read_text())[name]
    broken = {name for name, count in section["must_be_0"].items() if count}
    assert status == (1 if broken else 0)
    assert not broken - SECONDS, failures[-3000:]
    return section


@pytest.fixture
def campaign_here(tmp_path, monkeypatch, capsys) -> Iterator[Callable[..., dict]]:
    """`campaign` in this process, for those that fork nothing: their page is forked off the one
    that has imported Gradio already."""
    monkeypatch.setenv("TMPDIR", os.environ.get("TMPDIR", "/tmp"))  # a siege has its own
    out = tmp_path / "reliability.json"

    def run(*words: str, name: str | None = None) -> dict:
        status = command([*words, "--out", str(out)])
        return judged(out, name or words[0], status, capsys.readouterr().err)

    yield run
    honest.KEY.clear()


def test_spoiled_uploads_are_refused_and_leave_nothing(tmp_path):
    section = campaign(tmp_path, "uploads", "--count", "30", "--seed", "3", "--page-alone")
    happened = section["happened"]
    assert section["count"] == 30 and happened["refused"] > 10 and happened["taken"] > 5
    assert section["health_asked"] > 5


def test_one_address_that_attacks_has_nobody_refused_and_nothing_lost(campaign_here):
    said = ["--page-alone", "--count", "1", "--kinds", "parts,sessions"]
    section = campaign_here("siege", *said)
    turns = section["turns"]
    assert set(turns) == {"parts", "sessions", "all at once"}
    assert all(turn["answers"] >= 16 for turn in turns.values())
    assert set(turns["parts"]["attacker"]) & {"413", "WriteError", "ReadError"}
    assert turns["sessions"]["attacker"]["200"]
    played = siege.in_order(["parts", "sessions"], 0)
    assert [*turns] == [*played, "all at once"] and section["seconds_under_attack"] == 3


def test_where_passwords_are_guessed_the_right_one_opens_from_the_same_place(campaign_here):
    said = ["--page-alone", "--count", "1", "--kinds", "passwords"]
    section = campaign_here("siege", *said, name="siege_passwords")
    turn = section["turns"]["passwords"]
    assert turn["attacker"]["401"] and turn["logins"] >= 4 and turn["answers"] >= 16


@asynccontextmanager
async def listening(status: Callable[[dict[str, str]], int]) -> AsyncIterator[str]:
    """A server that answers with the status that `status` has for a request's headers; its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
        headers = {key.lower(): value for key, _, value in (one.partition(": ") for one in lines)}
        headers["from"] = writer.get_extra_info("peername")[0]
        await reader.readexactly(int(headers.get("content-length", 0)))
        told = f"HTTP/1.1 {status(headers)} so\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(told.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_honest_logins_come_from_the_guesser_s_address_and_from_an_unknown_one():
    seen, turn = [], honest.Turn()

    def status(headers: dict[str, str]) -> int:
        seen.append((headers["from"], headers.get("x-forwarded-for")))
        return 200 if len(seen) == 1 else 429

    async def log_in_twice() -> None:
        async with listening(status) as url:
            for number in (0, honest.PASSWORDS_AMONG):
                await honest._log_in(url, number, turn)

    asyncio.run(log_in_twice())
    assert seen == [(attacks.ADDRESS, None), ("127.0.1.9", attacks.BEHIND["x-forwarded-for"])]
    assert source("127.0.1.9", [seen[1][1]]) == ""
    assert len(turn.logins) == len(turn.refused) == 1 and "429" in turn.refused[0]


def test_a_siege_lasts_ten_minutes_in_the_order_of_its_seed():
    kinds = [*attacks.ATTACKS]
    assert COUNTS["siege"] * (len(kinds) + 1) >= 600
    one, two = siege.in_order(kinds, 1), siege.in_order(kinds, 2)
    assert one != two and one == siege.in_order(kinds, 1)
    assert sorted(one) == sorted(two) == sorted(kinds)


def test_what_a_page_leaves_in_the_temporary_folder_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/tmp")  # the siege changes it, and this puts it back
    left = "import tempfile; open(tempfile.mkstemp()[1], 'wb').write(bytes(3 * 2**20))"

    @contextmanager
    def page(root: Path, **_: object) -> Iterator[SimpleNamespace]:
        (root / "log").touch()
        subprocess.run([sys.executable, "-c", left], check=True)
        yield SimpleNamespace(log=root / "log")

    async def turns(server: object, root: Path, *_: object) -> None:
        measured.append(siege._disk(root))

    measured: list[float] = []
    monkeypatch.setattr(siege, "fake", page)
    monkeypatch.setattr(siege, "_turns", turns)
    siege.run(tmp_path, count=1, seed=0, end=float("inf"), real=False)
    assert measured[0] >= 3


class Noted(attacks.Attacker):
    """An attacker whose requests are noted and sent nowhere."""

    def __init__(self):
        super().__init__("http://page")
        self.requests: set[tuple[str, str]] = set()
        self.held: dict[str, int] = {}

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._note), base_url=self.url)

    async def hold(self, path: str, length: int, *_: object, **more: object) -> None:
        self.held[path] = length

    def _note(self, request: httpx.Request) -> httpx.Response:
        if (one := (request.method, request.url.path)) in self.requests:
            self.over.set()
        self.requests.add(one)
        return httpx.Response(404)


def test_attacks_send_silent_uploads_and_reach_for_all_that_gradio_has_besides():
    attacker = Noted()
    asyncio.run(attacker.silent_bodies())
    longest = max(rule.body for rule in rules(Settings.model_fields["max_upload_mb"].default))
    assert attacker.held["/gradio_api/upload"] == longest
    asyncio.run(attacker.reloads())
    paths = ["vibe-code", "vibe-edit", "vibe-starter-queries", "deep_link"]
    for name in (*paths, f"proxy={attacks.ELSEWHERE}", "dev/reload"):
        for method in ("GET", "POST"):
            assert (method, f"/gradio_api/{name}") in attacker.requests, name
    assert len(attacker.requests) == 2 * len(UNUSED) and "/gradio_api/dev/reload" in attacker.held


def test_mutated_requests_over_every_route_meet_no_fault(campaign_here):
    section = campaign_here("requests", "--count", "250", "--seed", "1")
    happened = section["happened"]
    assert section["count"] == 250 and happened["status_4xx"] > 60 and happened["status_2xx"] > 20
    assert sum(many for name, many in happened.items() if name.startswith("status_")) == 250
    assert section["must_be_0"]["routes_never_asked"] == 0


@pytest.mark.parametrize("times", [0, 6])
def test_mutated_requests_count_the_routes_that_they_never_asked(times):
    figures = Figures(mutated.PROMISED)

    async def send() -> None:
        async with listening(lambda _: 200) as url:
            count, end = times * len(RULES), float("inf")
            await mutated.send_all(url, figures, count=count, seed=1, end=end)

    asyncio.run(send())
    broken = {name: figures.counts[name] for name in figures.promised if figures.counts[name]}
    assert broken == ({} if times else {"routes_never_asked": len(RULES)})


def test_mutated_requests_take_each_route_s_own_body_and_repeat_themselves():
    dice = random.Random(5)
    called = [mutated.body_of("/gradio_api/mcp", dice) for _ in range(200)]
    assert {one["method"] for one in called} == {"tools/list", "tools/call"}
    assert {one["params"].get("name") for one in called} == {None, *TOOLS}
    texts = read_texts(mutated.body_of("/v1/embeddings", dice))
    assert texts.texts and mutated.body_of("/v1/completions", dice)["prompt"]
    one, two = ([mutated.made(random.Random(n), RULES[n % 7]) for n in range(70)] for _ in range(2))
    assert one == two


def unexplained(makefile: str) -> list[str]:
    """Ids that `make audit` passes over and that have no reason in the Makefile."""
    (ignored,) = re.findall(r"^IGNORED :=(.*)$", makefile, re.MULTILINE)
    explained = re.findall(r"^# (\S+): \S.*\.$", makefile, re.MULTILINE)
    return [one for one in ignored.split() if one not in explained]


def test_each_fault_that_the_audit_passes_over_has_its_reason():
    assert unexplained((REPOSITORY / "Makefile").read_text("utf-8")) == []
    assert unexplained("# CVE-1: We never call it.\nIGNORED := CVE-1 CVE-2\n") == ["CVE-2"]


def test_kills_leave_every_adapter_whole_or_absent(tmp_path):
    section = campaign(tmp_path, "kills", "--count", "3", "--kinds", "add,remove,set examples")
    assert section["count"] == 3


def test_a_small_disk_loses_nothing(tmp_path):
    before = way_to_mount()
    if before is None:
        pytest.skip("nobody may mount here; tests/test_pool_disk.py makes the disk fail otherwise")
    section = campaign(tmp_path, "disk", "--count", "4", "--seed", "2", before=before)
    assert any(name.endswith("refused") for name in section["happened"])


def test_a_damaged_index_finds_what_it_found(tmp_path):
    section = campaign(tmp_path, "index", "--count", "2")
    assert section["count"] == 2


def test_a_campaign_repeats_itself():
    one, two = (mutations.made(17, seed=4, shapes=SHAPES) for _ in range(2))
    assert one[0] == two[0] and one[1].files == two[1].files
    assert mutations.made(18, seed=4, shapes=SHAPES)[1].files != one[1].files


def spoil_tensors(folder: Path) -> None:
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-4:] = b"\x00\x00\x80\x7f"  # infinity
    (folder / "adapter_model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: None, ""),
        (spoil_tensors, "NaN or Inf"),
        (lambda f: (f / "adapter_config.json").write_text('{"r": 2, "r": 3}'), "twice"),
        (lambda f: (f / "adapter_config.json").write_text('{"use_dora": true}'), "use_dora"),
        (lambda f: (f / "more.bin").write_bytes(b"x"), "more.bin"),
    ],
)
def test_the_judge_sees_what_is_wrong(tmp_path, spoil, reason):
    upload = upload_file.sound(random.Random(3), SHAPES)
    folder = write_adapter(tmp_path / "a", arrays=upload.arrays, config=upload.config)
    spoil(folder)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = wrong_with(folder, upload_file.zip_of(files), shapes=SHAPES)
    assert (found == "") if not reason else reason in found


def test_the_judge_sees_a_file_that_the_zip_does_not_hold(tmp_path):
    upload = upload_file.sound(random.Random(3), SHAPES)
    folder = write_adapter(tmp_path / "a", arrays=upload.arrays)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = {**files, "adapter_config.json": b"{}"}
    assert "not what the zip holds" in wrong_with(folder, upload_file.zip_of(other), shapes=SHAPES)


def test_a_broken_promise_is_counted_and_one_section_leaves_the_others(tmp_path):
    figures = Figures(("hangs",))
    assert figures.sound and figures.record()["must_be_0"] == {"hangs": 0}
    figures.failed("hangs", "number 3")
    assert not figures.sound and figures.record()["must_be_0"] == {"hangs": 1}
    write_section(tmp_path / "r.json", "a", {"count": 1})
    write_section(tmp_path / "r.json", "b", {"count": 2})
    write_section(tmp_path / "r.json", "a", {"count": 3})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": {"count": 3}, "b": {"count": 2}}
