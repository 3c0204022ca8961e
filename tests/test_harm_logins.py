"""Under passwords nothing is open but the way to log in, and who guesses is slowed down."""

import itertools

import httpx
import pytest
from gradio_client import Client

from tests.pool_fakes import write_sample
from tests.serving import fake
from ui.door.logins import ADDRESSES, SPAN, TRIES, TRIES_UNKNOWN, Tries
from ui.door.refusal import Refused


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


def test_a_right_password_forgets_the_wrong_ones_before_it():
    tries = Tries(Clock())
    for _ in range(50):
        assert not refused(tries, "home")
        tries.right("home")


def test_who_shares_an_unknown_address_has_more_tries_together():
    tries = Tries(Clock())
    assert sum(not refused(tries, "") for _ in range(500)) == TRIES_UNKNOWN


def test_guessing_from_many_addresses_fills_no_memory():
    tries = Tries(Clock())
    for n in range(3 * ADDRESSES):
        tries.begin(str(n))
    assert len(tries._at) == ADDRESSES


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
    with httpx.stream(method, url, json=SAID.get(route), timeout=10) as told:
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


def test_who_has_logged_in_does_all_as_before(server):
    client = Client(server.url, auth=("ann", "secret"), verbose=False)
    assert client.predict("a b", api_name="/ask")[0] == "a b"
    assert [card["name"] for card in client.predict(api_name="/list_adapters")] == ["squad"]
    client.close()
