"""The route `/metrics`, for this machine or the networks in RAMOLE_METRICS.

Numbers contain no texts, but show how busy a server is, which is for its operator. Where the page
requires passwords or keys, so does this: as Basic, or `Bearer KEY`.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ramole_core import Ramole, __version__

from .model.loading import loading_of
from .openai.door import check_key
from .openai.errors import refused
from .session.accounts import Accounts
from .session.address import Network, networks, visitor_address
from .watch.events import REGISTRY

METRICS = "/metrics"
HERE = "127.0.0.0/8, ::1"
OFF = "off"
SETTING = "RAMOLE_METRICS"
PASSED_ON = ("x-forwarded-", "forwarded", "x-real-ip", "via")
"""Headers that a proxy adds."""
GAUGES = {
    "running": ("requests_running", "Requests that have a row of the batch"),
    "waiting": ("requests_waiting", "Requests in the queue"),
    "bank_adapters": ("resident_adapters", "Adapters on the device"),
    "host_adapters": ("host_adapters", "Adapters and merges in host memory"),
    "bank_bytes": ("device_cache_bytes", "Adapters on the device"),
    "host_bytes": ("host_cache_bytes", "Adapters in host memory"),
    "kv_bytes": ("kv_bytes", "Keys and values of requests that run"),
    "kv_cached_bytes": ("kv_cached_bytes", "Keys and values kept for what begins alike"),
    "kv_made_bytes": ("kv_made_bytes", "Memory for keys and values, up to RAMOLE_KV_CACHE_MB"),
    "engines": ("engines", "Engines that can be asked, where there are several"),
}
COUNTERS = {
    "decode_tokens": ("decode_tokens", "Tokens that were decoded, as they come; rate: tokens/s"),
    "prefill_tokens": ("prefill_tokens", "Prompt tokens that were read"),
    "shared_tokens": ("shared_tokens", "Prompt tokens that were found in the cache"),
    "forwards": ("forwards", "Forwards of the model"),
    "bank_loads": ("adapter_loads", "Adapters that were brought onto the device"),
    "bank_evictions": ("adapter_evictions", "Adapters that left the device"),
    "moves": ("answers_moved", "Answers that went on at another engine when theirs was lost"),
}


def metrics_routes(ramole: Ramole, accounts: Accounts, *, hosted: bool = False) -> list[Route]:
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


class Engine(Collector):
    """A collector of one system's `stats`; before the model is loaded, only that state."""

    def __init__(self, ramole: Ramole):
        self._ramole = ramole

    def collect(self) -> Iterable[Metric]:
        about = GaugeMetricFamily("ramole_info", "The version that runs", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        loading = loading_of(self._ramole)
        yield GaugeMetricFamily("ramole_ready", "1: the model answers", value=int(loading.ready))
        adapters = GaugeMetricFamily("ramole_adapters", "Adapters in the pool", labels=["kind"])
        cards = self._ramole.pool.all_cards()
        samples = sum(card.sample for card in cards)
        adapters.add_metric(["sample"], samples)
        adapters.add_metric(["upload"], len(cards) - samples)
        yield adapters
        stats = self._ramole.stats()
        for key, (name, words) in GAUGES.items():
            if key in stats:
                yield GaugeMetricFamily(f"ramole_{name}", words, value=stats[key])
        for key, (name, words) in COUNTERS.items():
            if key in stats:
                yield CounterMetricFamily(f"ramole_{name}", words, value=stats[key])
