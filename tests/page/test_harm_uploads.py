"""What lies in Gradio's cache is bounded, from one address and in all; honest uploads go on."""

import json
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.support import asgi
from tests.support.clocks import Steps
from ui.middleware import cache as cache_module
from ui.middleware.bodies import MAX_FILES, MultipartCounter
from ui.middleware.cache import (
    BYTES_PER_FILE,
    GRACE_SECONDS,
    UNNAMED,
    UploadCache,
    everything_below,
)
from ui.middleware.refusal import Refused, limited
from ui.serve import EMPTY_SECONDS, drop_old

EVIL = "203.0.113.39"
FORM = {"content-type": "multipart/form-data; boundary=x"}
KB = 2**10
UNIT = 100 * KB


class Cache:
    """A cache with a clock of its own; an address may have 4 units, all together 10."""

    def __init__(self, folder: Path):
        self.folder, self.now = folder, time.time()
        self.cache = UploadCache(
            folder, address_bytes=4 * UNIT, all_bytes=10 * UNIT, clock=lambda: self.now
        )
        self.count = 0

    def send(self, address: str, units: float = 1) -> Path:
        """An upload from there; raises Refused."""
        self.cache.check(address, int(units * UNIT))
        self.count += 1
        path = self.folder / f"hash{self.count}" / "file.zip"
        path.parent.mkdir()
        path.write_bytes(bytes(int(units * UNIT)))
        os.utime(path, (self.now + self.count / 1000,) * 2)
        self.cache.arrived(address, f'["{path}"]'.encode())
        return path

    def units(self) -> float:
        return sum(path.stat().st_size for path in self.folder.rglob("*.zip")) / UNIT


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path)


def test_an_address_has_its_share_and_others_go_on(cache):
    for _ in range(9):
        cache.send("evil").unlink()
    assert cache.units() == 0, "what was taken counts no more"
    first = [cache.send("evil") for _ in range(4)]
    with pytest.raises(Refused, match="wait a minute and try again"):
        cache.send("evil")
    cache.send("home")
    assert cache.units() == 5
    cache.now += GRACE_SECONDS + 1
    last = cache.send("evil")
    assert not first[0].exists() and all(path.exists() for path in (*first[1:], last))


def test_where_all_is_full_who_holds_most_gives_way_and_the_honest_go_on(cache):
    mine = cache.send("home")
    for address in ("a", "b", "c"):
        for _ in range(3):
            cache.send(address)
    cache.send("work")
    assert mine.exists() and cache.units() == 10
    for _ in range(40):  # as many addresses as one likes never come to more
        for address in ("a", "b", "c", "d"):
            try:
                cache.send(address)
            except Refused as told:
                assert "no room for uploads" in str(told) or "your address" in str(told)
    assert mine.exists() and cache.units() <= 10


def test_of_unknown_addresses_the_oldest_go_first_and_never_the_newest(cache):
    paths = [cache.send("") for _ in range(10)]
    with pytest.raises(Refused, match="no room for uploads"):
        cache.send("")
    cache.now += GRACE_SECONDS + 1
    assert cache.send("").exists() and not paths[0].exists() and paths[1].exists()


def test_bytes_on_their_way_and_the_number_of_files_count_too(cache, tmp_path):
    cache.cache.coming("evil", 4 * UNIT)
    with pytest.raises(Refused):
        cache.cache.check("evil", 1)
    cache.cache.coming("evil", -4 * UNIT)
    cache.cache.check("evil", 1)
    with pytest.raises(Refused, match="are the most at a time"):
        cache.cache.check("home", 5 * UNIT)
    with pytest.raises(Refused):
        for _ in range(100):
            cache.send("evil", 0.001)
    assert cache.count == 4 * UNIT // BYTES_PER_FILE + 1


def test_what_handlers_put_there_is_bounded_too_and_gives_way_to_uploads(cache):
    mine = cache.send("home")
    for n in range(12):
        path = cache.folder / f"trace-{n}" / "bundle.zip"
        path.parent.mkdir()
        path.write_bytes(bytes(UNIT))
        os.utime(path, (cache.now + n,) * 2)
    cache.cache.tidy()
    left = sorted(path.parent.name for path in cache.folder.rglob("bundle.zip"))
    assert mine.exists() and cache.units() == 10
    assert left == sorted(f"trace-{n}" for n in range(3, 12))


def test_a_folder_that_goes_while_the_cache_is_looked_at_is_no_fault(cache):
    """Every upload has one, and it goes when the upload is taken."""
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            for n in range(40):
                (cache.folder / f"gone{n}").mkdir()
            for n in range(40):
                (cache.folder / f"gone{n}").rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(150):
            cache.cache.check("home", 1)
            drop_old(cache.folder, 3600)
    finally:
        over.set()
        thread.join()


def test_many_small_files_cost_one_look_and_deny_nobody(tmp_path, monkeypatch):
    """Also where they come from addresses that nobody knows, and all are young."""
    now, looks = [0.0], []

    def slowly(folder: Path) -> Iterator[Path]:
        looks.append(now[0])
        now[0] += 0.2
        return everything_below(folder)

    monkeypatch.setattr(cache_module, "everything_below", slowly)
    monkeypatch.setattr(cache_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    unit, count = 2**20, 3000
    cache = UploadCache(tmp_path, address_bytes=64 * unit, all_bytes=count * BYTES_PER_FILE)
    for number in range(12):
        paths = [tmp_path / f"{number}-{n}" / "a" for n in range(count // 10)]
        for path in paths:
            path.parent.mkdir()
            path.touch()
        cache.arrived(f"{UNNAMED}{number}", json.dumps([str(path) for path in paths]).encode())
    for number in range(200):
        now[0] += 0.01
        cache.check(f"{UNNAMED}honest{number % 2}", unit)
        cache.tidy()
    assert len(looks) <= 3, "at most a tenth of the time, with all that is asked meanwhile"
    assert sum(path.is_file() for path in tmp_path.rglob("a")) <= count


@pytest.mark.parametrize("way", ["oldest", "heaviest", "tidied"])
def test_where_much_goes_at_once_a_file_takes_no_longer(tmp_path, way):
    def steps(count: int) -> int:
        folder = tmp_path / f"{count}"
        folder.mkdir()
        now = time.time() + (0 if way == "heaviest" else GRACE_SECONDS + 1)
        half = count // 2 * BYTES_PER_FILE
        cache = UploadCache(folder, address_bytes=half, all_bytes=half, clock=lambda: now)
        paths = [folder / f"{n}" / "a" for n in range(count)]
        for path in paths:
            path.parent.mkdir()
            path.touch()
        if way == "heaviest":
            cache.arrived("evil", json.dumps([str(path) for path in paths]).encode())
        with Steps() as steps:
            cache.tidy() if way == "tidied" else cache.check("honest", 1)
        assert sum(path.exists() for path in paths) == count // 2
        return steps.count

    assert steps(2000) < 4.4 * steps(500)


def test_nobody_waits_for_a_look_to_say_what_comes(cache):
    cache.cache._looking.acquire()
    cache.cache.coming("home", 1)
    cache.cache.arrived("home", b"[]")
    cache.cache._looking.release()


def test_what_is_only_announced_deletes_nothing(cache):
    paths = [cache.send("a") for _ in range(4)] + [cache.send("b") for _ in range(4)]
    cache.now += GRACE_SECONDS + 1
    cache.cache.check("c", 4 * UNIT, announced=True)
    assert all(path.exists() for path in paths)
    with pytest.raises(Refused, match="are the most at a time"):
        cache.cache.check("", 11 * UNIT, announced=True)
    cache.cache.coming("c", 4 * UNIT)
    cache.cache.check("c")
    assert [path.exists() for path in paths] == [False] * 2 + [True] * 6


@pytest.mark.parametrize("said", ['boundary="xy"', "xboundary=zzz; boundary=xy"])
def test_parts_are_counted_wherever_the_pieces_end(said):
    body = b"--xy\r\n\r\n1\r\n" * 7 + b"--xy--"
    for size in range(1, len(body) + 1):
        parts = MultipartCounter(f"multipart/form-data; {said}")
        for start in range(0, len(body), size):
            parts.feed(body[start : start + size])
        assert parts.count == 8, size


def test_empty_folders_leave_the_cache_unless_they_are_new(tmp_path):
    for name, age in (("old", EMPTY_SECONDS + 9), ("new", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    drop_old(tmp_path, 3600)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_body_is_cut_while_it_comes_whatever_the_page_makes_of_it():
    heard = []

    async def page(scope, receive, send):
        try:
            for _ in range(3):
                heard.append((await receive())["body"])
        except Exception:  # as FastAPI does, which answers by itself
            await send({"type": "http.response.start", "status": 400})

    async def take(piece, last):
        if heard:
            raise Refused(413, "Too long.")

    async def app(scope, receive, send):
        await limited(page, scope, receive, send, take)

    told = asgi.told(app, pieces=[(0, b"12"), (0, b"34"), (0, b"56")])
    assert told[0]["status"] == 413 and told[1]["body"] == b"Too long." and heard == [b"12"]
    assert not told[-1].get("more_body")


def upload(server, address: str = "unknown", **said) -> httpx.Response:
    headers = {"x-forwarded-for": address}
    if "content" in said:
        headers |= FORM
    return httpx.post(f"{server.url}/gradio_api/upload", headers=headers, timeout=60, **said)


def of_size(size: int, number: int = 7) -> dict[str, tuple[str, bytes]]:
    """One file; another number is another file."""
    return {"files": (f"f{number}.bin", number.to_bytes(4, "big") * (size // 4))}


def part(field: bytes, content: bytes = b"") -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="' + field + b'"; filename="a"\r\n\r\n'
    return head + content


def test_many_uploads_at_a_running_server_come_to_a_bound(server):
    sent = [upload(server, EVIL, files=of_size(900_000, number)) for number in range(12)]
    assert [one.status_code for one in sent[:4]] == [200] * 4
    assert {one.status_code for one in sent[5:]} == {429} and "wait a minute" in sent[-1].text
    assert sent[-1].headers["retry-after"] == "60"
    assert upload(server, "198.51.100.31", files=of_size(900_000)).status_code == 200


def test_equal_files_of_two_visitors_lie_apart_and_nobody_else_on_the_machine_reads_them(server):
    addresses = ("198.51.100.33", "198.51.100.34")
    sent = [Path(upload(server, one, files=of_size(400)).json()[0]) for one in addresses]
    assert len(set(sent)) == 2
    for path in sent:
        assert path.is_file()
        for one in (path, path.parent):
            assert stat.S_IMODE(one.stat().st_mode) & 0o077 == 0


def test_an_upload_of_very_many_files_is_told_so(server):
    files = [("files", (f"f{n}", b"")) for n in range(MAX_FILES + 1)]
    told = upload(server, "198.51.100.37", files=files)
    assert told.status_code == 413 and f"may have {MAX_FILES} files" in told.text


@pytest.mark.parametrize("address", ["198.51.100.32", "unknown"])
def test_a_body_without_a_length_is_bounded_as_well(server, address):
    def pieces():
        yield part(b"files")
        for _ in range(200):  # of many files, each below the limit
            yield b"1" * 2**19 + b"\r\n" + part(b"files")

    try:
        status = upload(server, address, content=pieces()).status_code
    except httpx.HTTPError:  # cut off while it was still sending
        status = 413
    assert status == 413


def files_with(folder: Path, mark: bytes, *, since: float = 0.0) -> list[Path]:
    """Files that lie there, not older, and hold the mark."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):
            young = path.is_file() and path.stat().st_mtime >= since - 1
            if young and mark in path.read_bytes():
                found.append(path)
    return found


def cut(server, form: bytes) -> None:
    """Send an upload that ends in the midst of its body, and wait until the server has noticed."""
    place = httpx.URL(server.url)
    with socket.create_connection((place.host, place.port), timeout=60) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + form
        )
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass


def test_an_upload_of_another_field_or_of_half_a_body_leaves_no_file(server):
    mark, began = secrets.token_hex(16).encode(), time.time()
    cache, system = server.log.parent / "gradio", Path(tempfile.gettempdir())
    for field in (b"other", b"files"):
        cut(server, part(field, 4096 * mark))
        whole = part(field, mark) + b"\r\n--x--\r\n"
        assert upload(server, content=whole).status_code == 200
        record = f"{server.url}/gradio_api/process_recording"
        told = httpx.post(record, content=whole, headers=FORM, timeout=60)
        assert told.status_code == 404
    kept = [
        path
        for folder in (cache, *cache.iterdir())
        if folder.is_dir()
        for path in files_with(folder, mark)
    ]
    assert len(kept) == 1 and not files_with(system, mark, since=began)
    drop_old(cache, 3600)
    assert kept[0].exists()
    os.utime(kept[0], (0, 0))
    drop_old(cache, 3600)
    assert not kept[0].exists()
