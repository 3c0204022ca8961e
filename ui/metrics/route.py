"""The route `/metrics`, for this machine or the networks in RAMOLE_METRICS.

Numbers tell nobody's words, but how busy a server is, and that is its operator's business. Where
the page asks for passwords or keys, so does this: as Basic, or `Bearer KEY`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..openai.door import check_key
from ..openai.errors import refused
from ..session.accounts import Accounts
from ..session.address import Network, networks, visitor_address
from ..watch.numbers import REGISTRY
from .engine import Engine

if TYPE_CHECKING:
    from ramole_core import Ramole

METRICS = "/metrics"
HERE = "127.0.0.0/8, ::1"
OFF = "off"
SETTING = "RAMOLE_METRICS"
PASSED_ON = ("x-forwarded-", "forwarded", "x-real-ip", "via")
"""Headers that a proxy adds."""


def metrics_routes(ramole: "Ramole", accounts: Accounts, *, hosted: bool = False) -> list[Route]:
    """The route; none where the operator switched it off. Raises RamoleError for a setting that is
    no list of networks."""
    said = ramole.settings.metrics
    if (said or "").strip().lower() == OFF:
        return []
    readers = networks(HERE if said is None else said, name=SETTING)
    trusted = networks(ramole.settings.trusted_proxies or "")
    own = CollectorRegistry()
    own.register(Engine(ramole))
    ProcessCollector(registry=own)
    GCCollector(registry=own)

    async def metrics(http: Request) -> Response:
        if not _may_read(http, readers, trusted, hosted=hosted):
            return PlainTextResponse(
                f"Numbers are for those whom the operator names in {SETTING}.", 403
            )
        try:
            await check_key(accounts, http)
        except Exception as error:
            return refused(error).response
        text = await run_in_threadpool(lambda: generate_latest(REGISTRY) + generate_latest(own))
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return [Route(METRICS, metrics)]


def _may_read(
    http: Request, readers: Sequence[Network], trusted: Sequence[Network], *, hosted: bool
) -> bool:
    peer = http.client.host if http.client else ""
    forwarded = http.headers.getlist("x-forwarded-for")
    passed_on = any(name.startswith(PASSED_ON) for name in http.headers)
    if passed_on and not forwarded:
        return False  # for whom, the proxy does not say
    named = trusted if passed_on else ()  # else it asks for itself: a scraper beside the proxy
    address = visitor_address(peer, forwarded, trusted=named, hosted=hosted)
    return address is not None and any(address in network for network in readers)
