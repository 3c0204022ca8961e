"""Foreign names and foreign pages are refused; our own page, clients and proxies are not."""

import asyncio

import pytest

from ramole_core import RamoleError
from tests.support import asgi
from ui.middleware.hosts import Hosts, host_names
from ui.session.address import HEADER, Addresses, networks

PROXY = "10.0.0.7"
SITE = "https://my.site"


@pytest.mark.parametrize(
    ("said", "listening", "welcome", "refused"),
    [
        (None, "127.0.0.1", "localhost:7860 127.0.0.1 [::1]:7860 192.168.1.5 a.localhost", "nas"),
        (None, "127.0.0.1", "host.docker.internal:7860", "docker.internal a.host.docker.internal"),
        (None, "localhost", "LOCALHOST", "evil.example localhost.evil.example 127.0.0.1.evil.com"),
        (None, "::1", "[::1]", "evil.example"),
        (None, "0.0.0.0", "nas:7860 my.site 203.0.113.9", ""),
        ("my.site", "0.0.0.0", "my.site MY.SITE:443 my.site. localhost", "nas a.my.site"),
        ("*.my.site, nas", "127.0.0.1", "a.my.site b.a.my.site nas", "my.site evilmy.site"),
        ("*", "127.0.0.1", "anything.at.all", ""),
    ],
)
def test_names_that_are_answered(said, listening, welcome, refused):
    names = host_names(said, listening=listening, hosted=False)
    wanted = dict.fromkeys(welcome.split(), True) | dict.fromkeys(refused.split(), False)
    assert {host: names.welcome(host) for host in wanted} == wanted
    assert host_names(None, listening=listening, hosted=True).welcome("me-ramole.hf.space")


@pytest.mark.parametrize("said", ["http://my.site", "my.site:80", "a b", "me@my.site"])
def test_names_that_are_none_are_one_sentence(said):
    with pytest.raises(RamoleError, match="RAMOLE_ALLOWED_HOSTS.* is not a list of host names"):
        host_names(said, listening="127.0.0.1", hosted=False)


def asked(
    *headers: tuple[str, str],
    method: str = "POST",
    path: str = "/gradio_api/upload",
    peer: str = "127.0.0.1",
    said: str | None = None,
    hosted: bool = False,
) -> int:
    """The status that such a request gets; 200 where it reaches the page."""
    names = host_names(said, listening="127.0.0.1", hosted=hosted)
    door = Hosts(asgi.page, names=names, trusted=networks(PROXY), hosted=hosted)
    return asgi.status(door, path, method=method, headers=headers, client=(peer, 1))


HERE, OTHER = ("host", "127.0.0.1:7860"), ("origin", "https://evil.example")
RENAMED = ("host", "ramole:7860")
NAMED, FORWARDED = ("origin", SITE), ("x-forwarded-host", "my.site")


@pytest.mark.parametrize(
    ("headers", "how", "status"),
    [
        ([HERE], {}, 200),  # curl, gradio_client
        ([HERE, ("origin", "http://127.0.0.1:7860")], {}, 200),
        ([("host", "127.0.0.1"), ("origin", "http://127.0.0.1:7860")], {}, 200),  # port lost
        ([HERE, OTHER], {}, 403),
        ([HERE, OTHER], {"method": "GET", "path": "/gradio_api/token"}, 403),
        ([HERE, ("origin", "null")], {}, 403),
        ([HERE, ("origin", "http://127.0.0.1:9")], {}, 403),  # another server of this machine
        ([HERE, ("sec-fetch-site", "cross-site")], {}, 403),
        ([HERE, ("sec-fetch-site", "cross-site")], {"method": "GET", "path": "/"}, 200),  # a link
        ([HERE, ("sec-fetch-site", "cross-site")], {"method": "GET", "path": "/logout"}, 403),
        ([HERE, NAMED, ("sec-fetch-site", "same-origin")], {}, 200),  # a proxy that nobody named
        ([HERE, NAMED, FORWARDED], {}, 403),  # a script can write that
        ([HERE, NAMED, FORWARDED], {"peer": PROXY}, 200),
        ([HERE, NAMED, FORWARDED], {"hosted": True}, 200),
        ([HERE, OTHER, FORWARDED], {"peer": PROXY}, 403),
        ([("host", "my.site"), NAMED], {"peer": PROXY}, 200),
        ([("host", "my.site:443"), NAMED], {"peer": PROXY}, 200),
        ([("host", "my.site"), ("origin", "https://my.site:8443")], {"peer": PROXY}, 200),
        ([("host", "my.site:80"), ("origin", "https://my.site:8443")], {"peer": PROXY}, 403),
        ([("host", "my.site"), NAMED], {}, 403),  # that name was never said
        ([("host", "my.site"), NAMED], {"said": "my.site"}, 200),
        ([HERE, NAMED], {"said": "my.site"}, 200),  # its pages may call, too
        ([HERE, OTHER], {"said": "*"}, 403),  # any name, yet no page of others
        ([RENAMED], {"method": "GET", "path": "/"}, 403),
        ([RENAMED], {"method": "GET", "path": "/", "peer": PROXY}, 200),
        ([("host", "[::1]:7860"), ("origin", "http://[::1]:7860")], {}, 200),
        ([HERE, ("origin", "http://[")], {}, 403),
    ],
)
def test_who_may_call(headers, how, status):
    assert asked(*headers, **how) == status


def test_the_servers_own_calls_for_an_mcp_client_pass():
    seen = {}

    async def page(scope, receive, send):
        seen.update(scope)

    scope = {"type": "http", "client": ("203.0.113.9", 1), "headers": []}
    asyncio.run(Addresses(page)(scope, None, None))
    (signed,) = [value.decode() for key, value in seen["headers"] if key == HEADER.encode()]
    assert asked(HERE, OTHER, (HEADER, signed)) == 200
    assert asked(HERE, OTHER, (HEADER, "203.0.113.9 " + "0" * 64)) == 403
