"""A request's address: the peer's, or that given by a trusted proxy.

Any client can write X-Forwarded-For, so it counts only from the proxies in RAMOLE_TRUSTED_PROXIES:
the right-most entry that is none of them is the visitor. An address is an IPv4 address, or a /64 of
IPv6, which one household or one server has.

The address is unknown ('') where none is certain: a named proxy gives no usable entry, the page
runs on a Space (its proxy is not known), or somebody on this very machine forwards for others and
was not named. No limit by address holds there, so that users of one proxy do not lock each other
out; the limits of a session and of all together still do. Any other proxy that was not named is one
address with all of its visitors, which is logged once.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from ramole_core import RamoleError

log = logging.getLogger(__name__)
HEADER = "x-ramole-address"
"""Written by the server alone. Gradio hands an MCP client's calls on to itself with their headers,
so the address has to travel in one, and is signed, or anybody could write it."""
OWN_HEADER = "x-ramole-own"
OWN = secrets.token_urlsafe(32)
"""Value of that header in unrequested calls of our pages' own MCP client."""
FORWARDED = b"x-forwarded-for"
UNKNOWN = "-"
"""Stands for '' there: no header may begin with a space, and httpx would not send it on."""
GROUP = 64
_KEY = secrets.token_bytes(32)
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Addresses:
    """ASGI middleware: each request gets its address in `HEADER`, which `address_of` reads."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network] = (), hosted: bool = False):
        """`trusted`: the proxies that the operator named; `hosted`: this is a Space."""
        self._app, self._trusted, self._hosted = app, trusted, hosted
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": self._written(scope)}
        await self._app(scope, receive, send)

    def _written(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        name = HEADER.encode()
        if is_own(scope["headers"]):
            return list(scope["headers"])
        said = [value.decode("latin1") for key, value in scope["headers"] if key == FORWARDED]
        peer = (scope.get("client") or ("",))[0]
        address = source(peer, said, trusted=self._trusted, hosted=self._hosted)
        if said and address and address == source(peer, [], hosted=self._hosted):
            self._warn(peer)
        kept = [(key, value) for key, value in scope["headers"] if key != name]
        return [*kept, (name, _signed(address).encode())]

    def _warn(self, peer: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "%s forwards for others, but is not in RAMOLE_TRUSTED_PROXIES: its visitors count "
                "as one address. Name it there if it is your proxy.",
                peer,
            )


def address_of(headers: Mapping[str, str]) -> str:
    """The address that `Addresses` wrote into these headers; '' where it is unknown."""
    return _read(headers.get(HEADER) or "") or ""


def is_own(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether this is a call of our own, for an MCP client."""
    known = [value for key, value in headers if key == HEADER.encode()]
    return len(known) == 1 and _read(known[0].decode("latin1")) is not None


def is_named(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether this peer is a proxy that the operator named."""
    host = _host(peer)
    return host is not None and _within(host, trusted)


def source(
    peer: str, forwarded: Sequence[str], *, trusted: Sequence[Network] = (), hosted: bool = False
) -> str:
    """The address behind a peer that sent these X-Forwarded-For; '' where it is unknown."""
    host = visitor_address(peer, forwarded, trusted=trusted, hosted=hosted)
    return "" if host is None else _group(host)


def visitor_address(
    peer: str, forwarded: Sequence[str], *, trusted: Sequence[Network] = (), hosted: bool = False
) -> Address | None:
    """The whole address; None where it is unknown."""
    host = _host(peer)
    if host is None:
        return None
    if not _within(host, trusted):
        unnamed = hosted or (host.is_loopback and bool(forwarded))
        return None if unnamed else host
    for entry in reversed(",".join(forwarded).split(",")):
        host = _host(entry.strip())
        if host is None or not _within(host, trusted):
            return host
    return None


def networks(said: str, *, name: str = "RAMOLE_TRUSTED_PROXIES") -> tuple[Network, ...]:
    """`10.0.0.0/8, 127.0.0.1`, the value of the setting `name`, as networks; raises RamoleError
    where it is not."""
    try:
        return tuple(
            ip_network(part.strip(), strict=False) for part in said.split(",") if part.strip()
        )
    except ValueError:
        raise RamoleError(
            f"{name}={said[:80]!r} is not a list of addresses or networks; write "
            "it like 127.0.0.1, 10.0.0.0/8, or unset it."
        ) from None


def _host(text: str) -> Address | None:
    """An address, with a port or without; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        host = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(host, "ipv4_mapped", None) or host


def _within(host: Address, trusted: Sequence[Network]) -> bool:
    return any(host in network for network in trusted)


def _group(host: Address) -> str:
    return str(host) if host.version == 4 else str(ip_network((int(host), GROUP), strict=False))


def _signed(address: str) -> str:
    word = address or UNKNOWN
    return f"{word} {hmac.new(_KEY, word.encode(), hashlib.sha256).hexdigest()}"


def _read(value: str) -> str | None:
    """The address of a header that this process wrote; None for any other."""
    word = value.partition(" ")[0]
    address = "" if word == UNKNOWN else word
    return address if hmac.compare_digest(value.encode(), _signed(address).encode()) else None
