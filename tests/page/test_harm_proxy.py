"""Behind nginx, as docs/hosting.md configures it: streams, uploads, addresses, names, origins."""

import asyncio
import os
import re
import select
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gradio_client import handle_file

from tests.page.test_api import speak_mcp
from tests.support.heard import Heard
from tests.support.pool_fakes import write_adapter, zipped
from tests.support.serving import REPOSITORY, Server, client_of, fake, free_port, wait_until

NAME = "ramole.example.org"
SITE = f"http://{NAME}"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or "nginx"
WORDS = "one two three four five six"


def documented(*, port: int, backend: str, under: str, **changed: str) -> str:
    """The server of docs/hosting.md, with these ports, and under this path as its text says."""
    text = (REPOSITORY / "docs" / "hosting.md").read_text("utf-8")
    (block,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    swaps = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "http://127.0.0.1:7860": backend + ("/" if under else ""),
        "location / {": f"location {under}/ {{",
        **changed,
    }
    for old, new in swaps.items():
        assert block.count(old) == 1, f"{old!r} is not in docs/hosting.md once"
        block = block.replace(old, new)
    return block


def documented_at_scale() -> tuple[str, str]:
    """The lines of docs/scale.md: those of http {}, and those of the server."""
    text = (REPOSITORY / "docs" / "scale.md").read_text("utf-8")
    (block,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    zone, rest = block.split("\n", 1)
    return zone, rest


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextmanager
def nginx(root: Path, block: str, port: int) -> Iterator[None]:
    """nginx with this server alone, until it answers; it ends with the block."""
    root.mkdir(parents=True)
    temporary = "\n".join(
        f"{kind}_temp_path {root}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = root / "nginx.conf"
    config.write_text(
        f"{user}\ndaemon off;\npid {root}/pid;\nerror_log {root}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}\n{block}\n}}\n"
    )
    process = subprocess.Popen([NGINX, "-e", f"{root}/error.log", "-c", str(config)])
    try:
        wait_until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, (root / "error.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


@dataclass(frozen=True)
class Site:
    url: str
    """With the path."""
    behind: Server
    under: str


@contextmanager
def proxied(root: Path, server: Server, *, under: str = "", **changed: str) -> Iterator[Site]:
    """nginx before this server."""
    port = free_port()
    with nginx(root, documented(port=port, backend=server.url, under=under, **changed), port):
        yield Site(f"http://127.0.0.1:{port}{under}", server, under)


@pytest.fixture(scope="module", params=["", "/ramole"], ids=["root", "path"])
def named(request, tmp_path_factory):
    """The documented proxy, named to the server behind it."""
    root, under = tmp_path_factory.mktemp("named"), request.param
    with ExitStack() as running:
        if under:
            said = {"max_upload_mb": 1, "trusted_proxies": "127.0.0.1"}
            behind = fake(root, under=under, variables={"heard": root / "heard"}, **said)
            server = running.enter_context(behind)
        else:
            server = request.getfixturevalue("server")
        yield running.enter_context(proxied(root / "nginx", server, under=under))


def visitor(url: str, address: str = "127.0.0.2", **headers: str) -> httpx.Client:
    """Somebody from this address, who calls the site by its name, each time by a new connection:
    nginx closes one whose body was refused before its end, at some moment after the answer."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    anew = httpx.Limits(max_keepalive_connections=0)
    there = httpx.HTTPTransport(local_address=address, limits=anew)
    return httpx.Client(transport=there, base_url=url, headers={"host": NAME, **said}, timeout=150)


def passed_at_once(site: Site, lines: Iterable[str], *, patience: float) -> bool:
    """Whether each word of an answer came before the next one was said."""
    heard, text = Heard(site.behind.log.parent / "heard"), ""
    heard.begin(patience=patience)
    for line in lines:
        text += line
        for count, word in enumerate(WORDS.split(), 1):
            if word in text:
                heard.hear(count)
    heard.end()
    assert WORDS.split()[-1] in text
    return not heard.given_up


def pictures(client: httpx.Client) -> Iterator[str]:
    """Those of an answer, as they come."""
    path = "/gradio_api/call/v2/ask"
    event = client.post(path, json={"prompt": WORDS}).raise_for_status().json()["event_id"]
    with client.stream("GET", f"/gradio_api/call/ask/{event}") as lines:
        yield from lines.iter_lines()


def test_a_proxy_as_documented_passes_each_token_when_it_comes(named):
    with visitor(named.url) as client:
        assert passed_at_once(named, pictures(client), patience=120)
    said = {"model": "ramole", "messages": [{"role": "user", "content": WORDS}], "stream": True}
    with visitor(named.url) as client:
        with client.stream("POST", "/v1/chat/completions", json=said) as lines:
            assert passed_at_once(named, lines.iter_lines(), patience=120)


def test_a_client_behind_it_uploads_asks_and_removes(named, tmp_path):
    archive = str(zipped(write_adapter(tmp_path / "mine", seed=3), tmp_path / "mine.zip"))
    client = client_of(named.url)
    added = client.predict(handle_file(archive), "by proxy", None, api_name="/add_adapter")
    assert added["yours"] and client.predict("a b", api_name="/ask")[0] == "a b"
    client.predict(added["name"], api_name="/remove_adapter")
    cards = client.predict(api_name="/list_adapters")
    assert added["name"] not in [card["name"] for card in cards]
    client.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # mcp renames its own client function
def test_an_mcp_client_behind_it_asks(named):
    _, (asked,) = asyncio.run(speak_mcp(named.url, [("ask", {"prompt": "a b"})]))
    assert asked.structuredContent["text"] == "a b"


def test_the_page_behind_it_names_itself_as_its_visitors_do(named):
    with visitor(named.url) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert client.get("/config").json()["root"] == f"{SITE}{named.under}"
        (script, *_) = re.findall(r'src="\./(assets/[^"]+\.js)"', page.text)
        assert client.get(f"/{script}").status_code == 200
        assert client.get("/health").json()["status"] == "ok"


def upload(client: httpx.Client, size: int = 900_000) -> httpx.Response:
    return client.post("/gradio_api/upload", files={"files": ("a.bin", os.urandom(size))})


def test_addresses_are_those_that_the_named_proxy_saw_whatever_a_visitor_writes(named):
    with visitor(named.url, "127.0.0.5") as evil:
        sent = [
            evil.post(
                "/gradio_api/upload",
                files={"files": ("a.bin", os.urandom(900_000))},
                headers={"x-forwarded-for": f"198.51.100.{n}"},
            ).status_code
            for n in range(7)
        ]
    assert sent[:4] == [200] * 4 and sent[-1] == 429
    with visitor(named.url, "127.0.0.6") as honest:
        assert upload(honest).status_code == 200


def test_pages_of_the_site_may_call_through_it_and_others_may_not(named):
    with visitor(named.url, "127.0.0.7", origin=SITE) as own:
        assert upload(own, 5).status_code == 200
    for origin in ("https://evil.example", "null", f"http://{NAME}.evil.example"):
        with visitor(named.url, "127.0.0.7", origin=origin) as other:
            told = upload(other, 5)
            assert told.status_code == 403 and "A page of another site" in told.text


def test_a_body_that_is_too_long_is_refused_before_or_behind_it(named):
    with visitor(named.url, "127.0.0.8") as client:
        told = client.post("/gradio_api/call/v2/ask", content=b"x" * 6 * 2**20)
        assert told.status_code == 413 and "longer than 2 MiB" in told.text


@pytest.fixture
def unnamed(named, tmp_path):
    """The same from an address of which the server was told nothing; and it buffers."""
    packed = "gzip on; gzip_types text/event-stream; gzip_proxied any;"
    changed = {"proxy_buffering off;": f"proxy_buffering on; proxy_bind 127.0.0.4; {packed}"}
    with proxied(tmp_path / "nginx", named.behind, under=named.under, **changed) as made:
        yield made


def test_a_proxy_that_was_not_named_is_believed_in_nothing(unnamed):
    with visitor(unnamed.url) as client:
        told = client.get("/")
        assert told.status_code == 403 and f"not answer to the name {NAME!r}" in told.text
        assert "RAMOLE_ALLOWED_HOSTS" in told.text and "RAMOLE_TRUSTED_PROXIES" in told.text
    here = httpx.URL(unnamed.url).netloc.decode()
    with visitor(unnamed.url, host=here, x_forwarded_for="127.0.0.1") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 403


def test_a_proxy_that_buffers_would_be_seen(unnamed):
    """Or the test of streams could not fail."""
    here = httpx.URL(unnamed.url).netloc.decode()
    with visitor(unnamed.url, host=here) as client:
        assert not passed_at_once(unnamed, pictures(client), patience=1)


def test_the_lines_for_many_engines_cut_who_says_nothing_and_who_opens_too_many(tmp_path):
    """Before a server that takes connections, and ends them once too many were refused."""
    port, (zone, lines) = free_port(), documented_at_scale()
    assert "limit_conn visitors 64;" in lines
    lines = lines.replace("visitors 64", "visitors 4")
    with ExitStack() as opened:
        behind = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        backend = f"http://127.0.0.1:{behind.getsockname()[1]}"
        swaps = {"client_header_timeout 20s;": f"client_header_timeout 1s;\n{lines}"}
        block = documented(port=port, backend=backend, under="", **swaps)
        opened.enter_context(nginx(tmp_path / "nginx", f"{zone}\n{block}", port))

        def ask(said: bytes) -> socket.socket:
            made = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            made.sendall(said)
            return made

        head = b"GET / HTTP/1.1\r\nHost: x\r\n"
        for one in (ask(b""), ask(head)):
            with suppress(ConnectionResetError):
                assert one.recv(1000) == b"", "it is cut without a word"
        asked = [ask(head + b"\r\n") for _ in range(6)]
        wait_until(lambda: len(select.select(asked, [], [], 0)[0]) == 2)
        for _ in range(4):
            behind.accept()[0].close()
        said = sorted(one.recv(1000).split()[1] for one in asked)
        assert said == [b"502"] * 4 + [b"503"] * 2
