"""Host names that the server answers to, and origins that may call it.

A page of somebody else can make its visitor's browser call a server that only that browser reaches:
under the server's own name (then the browser sends the page's origin), or under a name of its own
that it points here (DNS rebinding). An address is no such name, and neither is localhost, nor the
name that containers have for this machine.

The calling page is known from browsers' headers: `Sec-Fetch-Site`, which no script can write, else
`Origin` beside `Host`. Clients that are no browsers send neither, and are none of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ramole_core import RamoleError

from ..session.address import Network, is_named, is_own
from .refusal import HttpMiddleware, Refused, header

ANY = "*"
CONTAINERS = "host.docker.internal"
"""Docker's name for the machine it runs on; nobody can register one below it."""
SAFE = ("GET", "HEAD", "OPTIONS")
OWN = ("same-origin", "none")
"""Values of `Sec-Fetch-Site` for our own page, and for the address bar."""


@dataclass(frozen=True)
class HostNames:
    """The operator's host names, and whether others are accepted too."""

    said: tuple[str, ...] = ()
    """In lower case; `*.example.org` stands for every name below it, `*` for all."""
    here: str = ""
    """Address that it listens on."""
    others: bool = False
    """Whether no names were set, and the server listens beyond this machine."""

    def welcome(self, host: str) -> bool:
        """Whether a request for this Host is accepted."""
        name = _name(host)
        local = (
            name in ("", self.here)
            or name in ("localhost", CONTAINERS)
            or name.endswith(".localhost")
            or _numeric(name)
        )
        return local or self.others or ANY in self.said or self.named(name)

    def named(self, name: str) -> bool:
        """Whether the operator named this host, or all below its domain."""
        below = (one.removeprefix(ANY) for one in self.said if one.startswith("*."))
        return name in self.said or any(name.endswith(domain) for domain in below)


def host_names(said: str | None, *, listening: str, hosted: bool) -> HostNames:
    """From RAMOLE_ALLOWED_HOSTS and the address listened on; `hosted`: this is a Space. Raises
    RamoleError for what is no list of names."""
    names = tuple(part.strip().lower() for part in (said or "").split(",") if part.strip())
    if any(set(name) & set("/ @?#") or (":" in name and not _numeric(name)) for name in names):
        raise RamoleError(
            f"RAMOLE_ALLOWED_HOSTS={(said or '')[:80]!r} is not a list of host names; write it "
            "like ramole.example.org, *.example.net, without http:// and ports, or unset it."
        )
    here = _name(listening)
    alone = here == "localhost" or (_numeric(here) and ip_address(here).is_loopback)
    return HostNames(names, here, others=not names and (hosted or not alone))


class Hosts(HttpMiddleware):
    """ASGI middleware that refuses foreign hosts and origins."""

    def __init__(
        self, app: ASGIApp, *, names: HostNames, trusted: Sequence[Network] = (), hosted: bool
    ):
        """`trusted`: the proxies that the operator named; `hosted`: a Space's is trusted too."""
        super().__init__(app)
        self._names, self._trusted, self._hosted = names, trusted, hosted

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_own(scope["headers"]):
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise Refused for a foreign host or origin."""
        peer = (scope.get("client") or ("",))[0]
        proxied = self._hosted or is_named(peer, self._trusted)
        host = header(scope, "host") or ""
        if not proxied and not self._names.welcome(host):
            raise Refused(
                403,
                f"This server does not answer to the name {_name(host)[:80]!r}; its operator can "
                "allow that in RAMOLE_ALLOWED_HOSTS, or name the proxy in RAMOLE_TRUSTED_PROXIES.",
                reason="host",
            )
        forwarded = header(scope, "x-forwarded-host") if proxied else None
        if self._foreign(scope, (host, (forwarded or "").partition(",")[0].strip())):
            raise Refused(
                403,
                "A page of another site may not call this server; its operator can allow that site "
                "in RAMOLE_ALLOWED_HOSTS.",
                reason="site",
            )

    def _foreign(self, scope: Scope, hosts: Sequence[str]) -> bool:
        site, origin = header(scope, "sec-fetch-site"), header(scope, "origin")
        if site in OWN:
            return False
        if origin is None:
            changes = scope["method"] not in SAFE or get_route_path(scope).rstrip("/") == "/logout"
            return changes and site is not None
        return not (
            self._names.named(_name(_place(origin))) or any(_same(origin, h) for h in hosts)
        )


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is of this Host; a Host without a port may have lost it in a proxy."""
    if not host:
        return False
    port = {"http": "80", "https": "443"}.get(origin.partition(":")[0], "")
    said, meant = _port(host), _port(_place(origin)) or port
    return _name(_place(origin)) == _name(host) and said in ("", meant)


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A Host without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return (host.partition(":")[0] if host.count(":") < 2 else host).rstrip(".")


def _port(host: str) -> str:
    rest = host.rpartition("]")[2] if "]" in host else host
    return rest.partition(":")[2]


def _numeric(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
