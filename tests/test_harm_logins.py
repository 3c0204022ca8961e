"""Under passwords nothing is open but the way to log in, and who guesses is slowed down."""

import asyncio
import itertools
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client

from tests.pool_fakes import write_sample
from tests.serving import fake
from ui.middleware.logins import ADDRESSES, SPAN, TRIES, TRIES_UNKNOWN, Logins, Tries
from ui.middleware.refusal import Refused
from ui.openai.errors import Refused as NoKey
from ui.openai.keys import Keys


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(tries: Tries, address: str) -> bool:
    try:
        tries.begin(address)
    except Refused as told:
        assert "Too many wrong passwords" in str(told) and "seconds" in str(told)
        return True
    return False


def test_after_too_many_wrong_passwords_an_address_waits_and_others_do_not():
    clock = Clock()
    tries = Tries(clock)
    assert [refused(tries, "evil") for _ in range(TRIES + 3)] == [False] * TRIES + [True] * 3
    assert not refused(tries, "home")
    clock.now += SPAN - 1
    assert refused(tries, "evil")
    clock.now += 2
    assert not refused(tries, "evil")


def test_a_right_password_takes_back_its_own_try_alone():
    tries = Tries(Clock())
    for _ in range(50):
        tries.right("home", tries.begin("home"))
    guesses = 0
    for _ in range(50):  # who has an account guesses at another
        guesses += not refused(tries, "home")
        if guesses < TRIES:
            tries.right("home", tries.begin("home"))
    assert guesses == TRIES


def test_a_key_that_opens_forgets_no_guesses_either():
    tries = Tries(Clock())
    keys = Keys([("ben", "his")], tries)
    for _ in range(TRIES - 1):
        with pytest.raises(NoKey):
            keys.check("Bearer anna:guess", "home")
        keys.check("Bearer ben:his", "home")
    assert not refused(tries, "home") and refused(tries, "home")


def test_who_shares_an_unknown_address_has_more_tries_together():
    tries = Tries(Clock())
    assert sum(not refused(tries, "") for _ in range(500)) == TRIES_UNKNOWN


def test_guessing_from_many_addresses_fills_no_memory():
    tries = Tries(Clock())
    for n in range(3 * ADDRESSES):
        tries.begin(str(n))
    assert len(tries._at) == ADDRESSES


@pytest.mark.parametrize(
    ("path", "root", "status"),
    [
        ("/ramole/", "/ramole", 200),
        ("/ramole", "/ramole", 200),
        ("/ramole/login", "/ramole", 200),
        ("/ramole/health", "/ramole", 200),
        ("/health", "/ramole", 200),
        ("/ramole/v1/models", "/ramole", 200),
        ("/ramole/gradio_api/app_id", "/ramole", 401),
        ("/ramolehealth", "/ramole", 401),
        ("/ramole/health", "", 401),
    ],
)
def test_under_a_path_that_the_proxy_leaves_on_the_same_is_open(path, root, status):
    told = []

    async def page(scope, receive, send):
        told.append(200)

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        told.append(message.get("status"))

    gradio = SimpleNamespace(startup_events_triggered=True, cookie_id="x", tokens={})
    scope = {"type": "http", "method": "GET", "headers": [], "app": gradio}
    scope |= {"path": path, "root_path": root}
    asyncio.run(Logins(page, tries=Tries())(scope, receive, send))
    assert told[0] == status


def test_guesses_under_such_a_path_count_as_well():
    tries, told = Tries(Clock()), []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 400})

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        told.extend([message["status"]] if "status" in message else [])

    scope = {"type": "http", "method": "POST", "headers": [], "app": None}
    scope |= {"path": "/ramole/login", "root_path": "/ramole"}
    for _ in range(TRIES_UNKNOWN + 1):
        asyncio.run(Logins(page, tries=tries)(scope, receive, send))
    assert told == [400] * TRIES_UNKNOWN + [429]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("locked")
    write_sample(root / "adapters", "squad", rank=5, seed=1, examples=["where is the cat"])
    with fake(root, auth="ann:secret", trusted_proxies="127.0.0.1") as running:
        yield running


ROUTES = {
    "GET": "user token app_id startup-events info openapi.json queue/status theme.css login_check "
    "heartbeat/abcdefgh upload_progress?upload_id=x queue/data?session_hash=abcdefgh runs "
    "stream/a/b/1/playlist.m3u8 stream/a/b/1/playlist-file stream/a/b/1/s.ts vibe-code mcp/ "
    "deep_link?session_hash=x file=/etc/passwd dev/reload monitoring profiling/traces",
    "POST": "cancel reset stream/abc stream/abc/close queue/join upload run/ask api/ask call/ask "
    "call/v2/ask component_server process_recording vibe-edit vibe-code mcp/",
}
SAID = {"cancel": {"session_hash": "a", "fn_index": 1, "event_id": "b"}, "reset": {"event_id": "b"}}
KNOWN = {"theme.css"}
"""Open, and the same for everybody."""


@pytest.mark.parametrize(
    ("method", "route"),
    [(method, route) for method, routes in ROUTES.items() for route in routes.split()],
)
def test_no_route_is_open_without_a_password(server, method, route):
    url = f"{server.url}/gradio_api/{route}"
    with httpx.stream(method, url, json=SAID.get(route), timeout=60) as told:
        assert (told.status_code == 200) == (route in KNOWN)
        assert told.status_code in (200, 401)


def test_neither_is_a_path_that_only_looks_like_an_open_one(server):
    for path in ("/static/../gradio_api/app_id", "//gradio_api/app_id", "/health/../config", "/x"):
        told = httpx.get(httpx.URL(server.url).copy_with(raw_path=path.encode()), timeout=30)
        assert told.status_code in (401, 403, 404), path


def test_the_page_for_logging_in_and_its_files_are_open(server):
    page = httpx.get(server.url, timeout=30)
    assert page.status_code == 200 and "squad" not in page.text
    assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
    files = {part.split('"')[0] for part in page.text.split('"./assets/')[1:]}
    assert files and all(
        httpx.get(f"{server.url}/assets/{file}", timeout=30).status_code == 200
        for file in itertools.islice(sorted(files), 3)
    )


def test_the_numbers_ask_for_a_password_too(server):
    for auth, status in ((None, 401), (("ann", "wrong"), 401), (("ann", "secret"), 200)):
        told = httpx.get(f"{server.url}/metrics", auth=auth, timeout=30)
        assert told.status_code == status


def log_in(server, password: str, address: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/login",
        data={"username": "ann", "password": password},
        headers={"x-forwarded-for": address},
        timeout=30,
    )


def test_a_guesser_is_stopped_and_the_owner_of_the_password_is_not(server):
    wrong = [log_in(server, f"guess{n}", "203.0.113.9") for n in range(TRIES + 2)]
    assert [told.status_code for told in wrong] == [400] * TRIES + [429] * 2
    assert "Too many wrong passwords" in wrong[-1].text and int(wrong[-1].headers["retry-after"])
    assert log_in(server, "secret", "203.0.113.9").status_code == 429, "nor is a right guess told"
    assert log_in(server, "secret", "198.51.100.1").status_code == 200


def test_without_a_password_an_announced_upload_is_asked_for_it_first(server):
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as line:
        line.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert b" 401 " in line.recv(4096).partition(b"\r\n")[0]


def test_who_has_logged_in_does_all_as_before(server):
    client = Client(server.url, auth=("ann", "secret"), verbose=False)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()
