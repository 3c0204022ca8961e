"""What every answer says to browsers, what is made once for all, and what watchers are told."""

import asyncio
import fcntl
import gzip
import os
import subprocess
import sys
from pathlib import Path

import brotli
import httpx
import pytest
from gradio.brotli_middleware import BrotliMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route

from tests.support import asgi
from tests.support.fake_ramole import FakeRamole
from tests.support.serving import REPOSITORY
from ui import gradio_home
from ui.health import FAILED, health_routes
from ui.middleware import kept as kept_module
from ui.middleware.kept import ResponseCache
from ui.middleware.routes import RULES, Routes
from ui.model.loading import loading_of


def get(app, path: str, **headers: str) -> httpx.Response:
    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            client.headers["accept-encoding"] = "identity"
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.fixture
def made() -> list[str]:
    """Paths of the answers that were made."""
    return []


@pytest.fixture
def app(made):
    def answers(make):
        def answer(request: Request):
            made.append(request.url.path)
            return make(request)

        return answer

    page = answers(lambda asked: HTMLResponse(f"<p>{asked.url.netloc}</p>" * 100))
    config = answers(lambda asked: JSONResponse({"a": ["b"] * 1000}))
    script = answers(
        lambda asked: PlainTextResponse("x" * 5000, 404 if "gone" in asked.url.path else 200)
    )
    routes = [Route("/", page), Route("/config", config), Route("/assets/{name}", script)]
    return lambda: Routes(ResponseCache(Starlette(routes=routes), pages=True), table=RULES)


def test_pages_for_invented_names_are_bounded_and_the_known_one_is_served(app, made):
    served = app()
    told = [get(served, "/", host=f"name{n}.example").status_code for n in range(3000)]
    assert get(served, "/", host="name0.example").status_code == 200, "it is there already"
    assert set(told) == {200, 429} and told[:16] == [200] * 16 and told.count(200) < 1000
    assert len(made) == told.count(200)


def test_the_page_is_made_and_packed_once_for_each_name_and_encoding(app, made):
    served = app()
    for _ in range(3):
        assert get(served, "/?__theme=dark").text == "<p>here</p>" * 100
        packed = get(served, "/", **{"accept-encoding": "gzip, deflate"})
        assert packed.headers["content-encoding"] == "gzip" and len(packed.text) == 1100
        assert int(packed.headers["content-length"]) < 200
        other = get(served, "/", host="other.example")
        assert "other.example" in other.text
    assert made == ["/"] * 3
    for _ in range(2):
        assert get(served, "/?deep_link=x").status_code == 200
    assert len(made) == 5, "a link opens a state of its own"


@pytest.mark.parametrize(
    ("said", "packed"),
    [
        ("gzip, br", "br"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip, br;q=0", "gzip"),
        ("br ; q=0.0, gzip;q=0", None),
        ("br;q=0.1, gzip;q=0.9", "gzip"),
        ("*", "br"),
        ("*;q=0.5, br;q=0", "gzip"),
        ("br;q=many", None),
        ("identity", None),
        ("abracadabra, gzipped", None),
        ("", None),
    ],
)
def test_an_answer_is_packed_as_it_may_be(app, said, packed):
    served = app()
    for _ in range(2):
        told = get(served, "/", **{"accept-encoding": said})
        assert told.headers.get("content-encoding") == packed
        assert told.text == "<p>here</p>" * 100


def test_what_lies_behind_packs_nothing_that_the_reader_cannot_unpack(made):
    def script(request: Request):
        made.append(request.headers["accept-encoding"])
        return PlainTextResponse("x" * 5000)

    behind = Starlette(routes=[Route("/assets/{name}", script)])
    served = Routes(ResponseCache(BrotliMiddleware(behind), pages=True), table=RULES)
    for said, packed in (("gzip, br;q=0", "gzip"), ("gzip", "gzip"), ("abracadabra", None)):
        told = get(served, "/assets/a.js", **{"accept-encoding": said})
        assert told.headers.get("content-encoding") == packed and told.text == "x" * 5000
    assert made == ["gzip", "identity"]


def test_brotli_and_gzip_unpack_to_what_was_made(app):
    bodies = []
    for encoding, unpack in (("br", brotli.decompress), ("gzip", gzip.decompress), ("", bytes)):
        said = [("accept-encoding", encoding), ("host", "here")]
        scope = {"root_path": "", "scheme": "http", "server": None}
        told = asgi.told(app(), "/config", headers=said, **scope)
        bodies.append(unpack(told[1]["body"]))
    assert len(bodies[0]) > 1000 and len(set(bodies)) == 1


def test_what_is_no_answer_or_a_part_of_one_is_not_kept_and_room_is_bounded(app, made, monkeypatch):
    served = app()
    for _ in range(2):
        assert get(served, "/assets/gone.js").status_code == 404
        assert get(served, "/assets/a.js", range="bytes=0-3").status_code == 200
        assert get(served, "/assets/a.js", **{"if-none-match": "x"}).status_code == 200
    assert len(made) == 6
    monkeypatch.setattr(kept_module, "MAX_KEPT_BYTES", 3 * 5200)
    for n in range(50):
        get(served, f"/assets/{n}.js")
    made.clear()
    for n in (49, 48, 0):
        get(served, f"/assets/{n}.js")
    assert made == ["/assets/0.js"]


@pytest.mark.parametrize(
    ("state", "statuses"),
    [("ready", [200, 200, 200]), ("loading", [200, 200, 503]), ("failed", [503, 200, 503])],
)
def test_who_watches_learns_how_the_model_is_and_no_path_of_the_server(state, statuses):
    ramole = FakeRamole(loaded=state == "ready")
    app = Starlette(routes=health_routes(ramole))
    if state == "failed":
        loading_of(ramole).error = "/home/secret/base cannot be read."
    told = [get(app, path) for path in ("/health", "/livez", "/readyz")]
    assert [one.status_code for one in told] == statuses
    assert "secret" not in "".join(one.text for one in told)
    if state == "failed":
        assert told[0].json()["status"] == "error" and told[0].json()["model"]["error"] == FAILED
    assert get(app, "/version").json() == {"version": told[0].json()["version"]}


def test_a_killed_process_leaves_its_folder_to_the_next_and_one_that_lives_keeps_its_own(tmp_path):
    said = "from ui.gradio_home import CACHE; print(CACHE.name, flush=True); input()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    lives, killed = (
        subprocess.Popen(
            [sys.executable, "-c", said],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    kept, left = (Path(one.stdout.readline().strip()) for one in (lives, killed))
    killed.kill()
    killed.communicate()
    assert kept.is_dir() and left.is_dir()
    gradio_home._remove_left(tmp_path)
    assert kept.is_dir() and not left.exists()
    lives.communicate("\n")
    assert not kept.exists()


def test_a_folder_that_is_being_made_is_not_taken_for_a_dead_processes(tmp_path, monkeypatch):
    """Another process begins at the same moment, and looks before this one has its lock."""
    flock, looks = fcntl.flock, []

    def late(file, how):
        if not looks:
            looks.append(file)
            gradio_home._remove_left(tmp_path)
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    folder = tmp_path / f"{gradio_home.PREFIX}new"
    folder.mkdir()
    assert not gradio_home._locked(folder, keep=True)
    gradio_home._remove_left(tmp_path)
    assert looks and folder.is_dir()
    gradio_home._held.pop().close()
    gradio_home._remove_left(tmp_path)
    assert not folder.exists(), "nobody holds it any more"


def test_every_answer_binds_browsers(server):
    for path, status in (("/", 200), ("/health", 200), ("/x", 404), ("/theme.css", 200)):
        told = httpx.get(f"{server.url}{path}", timeout=30)
        assert told.status_code == status
        assert told.headers["x-content-type-options"] == "nosniff"
        policy = told.headers["content-security-policy"]
        assert policy.startswith("frame-ancestors 'self' https://huggingface.co ")
        assert policy.endswith(" *.example.net")


def test_one_component_is_told_how_far_every_event_is(server):
    """The page updates each that any event reports to at every message of an answer."""
    events = httpx.get(f"{server.url}/config", timeout=60).json()["dependencies"]
    told = {tuple(event["show_progress_on"] or ()) for event in events}
    assert len(events) > 9 and len(told) == 1 and len(*told) == 1, (len(events), told)


def test_the_configuration_is_small_on_the_wire_and_says_what_it_said(server):
    plain = httpx.get(f"{server.url}/config", headers={"accept-encoding": "identity"}, timeout=60)
    packed = httpx.get(f"{server.url}/config", headers={"accept-encoding": "gzip"}, timeout=60)
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < len(plain.content) / 4
