"""Where a request comes from: the peer, or a named proxy's word, and never the visitor's own."""

import asyncio
import logging

import pytest
from starlette.datastructures import Headers

from ramole_core import RamoleError
from ui.session.address import HEADER, Addresses, address_of, networks, source

PROXIES = networks("10.0.0.0/8, 127.0.0.1,2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),  # the visitor's own words
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["1.2.3.4, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),  # the right-most
        ("10.1.2.3", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("2001:db8:1::1", ["[2001:db8:9:8:7:6:5:4]:443"], "2001:db8:9:8::/64"),
        ("2001:db8:9:8::1", [], "2001:db8:9:8::/64"),
        ("2001:db8:9:8:ffff::2", [], "2001:db8:9:8::/64"),  # of the same household
        ("2001:db8:9:9::1", [], "2001:db8:9:9::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("10.1.2.3", [], ""),
        ("10.1.2.3", ["unknown"], ""),
        ("10.1.2.3", ["203.0.113.9, unknown"], ""),
        ("10.1.2.3", ["10.4.4.4"], ""),
        ("", ["203.0.113.9"], ""),
        ("testclient", [], ""),
    ],
)
def test_the_right_most_entry_that_no_named_proxy_is(peer, said, address):
    assert source(peer, said, trusted=PROXIES) == address


@pytest.mark.parametrize(
    ("peer", "said", "how", "address"),
    [
        ("10.1.2.3", ["203.0.113.9"], {}, "10.1.2.3"),
        ("127.0.0.1", [], {}, "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], {}, ""),  # a proxy on this machine
        ("10.1.2.3", ["203.0.113.9"], {"hosted": True}, ""),
        ("10.1.2.3", ["203.0.113.9"], {"trusted": PROXIES, "hosted": True}, "203.0.113.9"),
    ],
)
def test_without_named_proxies_the_peer_is_who_asks_unless_others_share_it(
    peer, said, how, address
):
    assert source(peer, said, **how) == address


@pytest.mark.parametrize("said", ["proxy.example", "10.0.0.0/33", "1.2.3", "127.0.0.1 10.0.0.1"])
def test_proxies_that_are_none_are_refused_in_a_sentence(said):
    with pytest.raises(RamoleError, match="RAMOLE_TRUSTED_PROXIES=.*is not a list of addresses"):
        networks(said)
    assert networks("") == networks(" , ") == ()


def passed(peer: str, *headers: tuple[str, str], **options) -> Headers:
    """The headers as the page gets them."""
    seen = {}

    async def page(scope, receive, send):
        seen.update(scope)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    door = Addresses(page, **options)
    asyncio.run(door({"type": "http", "client": (peer, 1), "headers": raw}, None, None))
    return Headers(raw=seen["headers"])


def test_what_a_visitor_writes_into_the_servers_header_is_thrown_away():
    for lie in ("1.2.3.4", "1.2.3.4 " + "0" * 64, "", " "):
        headers = passed("203.0.113.9", (HEADER, lie), ("accept", "x"))
        assert address_of(headers) == "203.0.113.9" and headers["accept"] == "x"
        assert len(headers.getlist(HEADER)) == 1
    assert address_of({HEADER: "1.2.3.4 é"}) == address_of({}) == ""


def test_an_address_comes_through_the_servers_call_to_itself():
    theirs = passed("203.0.113.9")[HEADER]
    assert address_of(passed("127.0.0.1", (HEADER, theirs))) == "203.0.113.9"
    unknown = passed("10.1.2.3", trusted=PROXIES)[HEADER]
    assert address_of(passed("127.0.0.1", (HEADER, unknown))) == ""


def test_the_log_names_a_proxy_that_nobody_named(caplog):
    with caplog.at_level(logging.WARNING):
        passed("10.1.2.3")
        passed("10.1.2.3", ("x-forwarded-for", "203.0.113.9"), trusted=PROXIES)
        assert not caplog.messages
        passed("172.17.0.1", ("x-forwarded-for", "203.0.113.9"), trusted=PROXIES)
    assert "172.17.0.1 forwards for others" in caplog.text
