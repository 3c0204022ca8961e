"""Gauges of engine and pool, read when `/metrics` is requested."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ramole_core import __version__

from ..model.loading import loading_of

if TYPE_CHECKING:
    from ramole_core import Ramole

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


class Engine(Collector):
    """A collector of one system's `stats`; before the model is loaded, only that it is not."""

    def __init__(self, ramole: "Ramole"):
        self._ramole = ramole

    def collect(self) -> Iterable[Metric]:
        """Collect all gauges; called by prometheus-client."""
        about = GaugeMetricFamily("ramole_info", "The version that runs", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        loading = loading_of(self._ramole)
        yield GaugeMetricFamily("ramole_ready", "1: the model answers", value=int(loading.ready))
        yield self._pool()
        stats = self._ramole.stats()
        for key, (name, words) in GAUGES.items():
            if key in stats:
                yield GaugeMetricFamily(f"ramole_{name}", words, value=stats[key])
        for key, (name, words) in COUNTERS.items():
            if key in stats:
                yield CounterMetricFamily(f"ramole_{name}", words, value=stats[key])

    def _pool(self) -> Metric:
        adapters = GaugeMetricFamily("ramole_adapters", "Adapters in the pool", labels=["kind"])
        cards = self._ramole.pool.all_cards()
        samples = sum(card.sample for card in cards)
        adapters.add_metric(["sample"], samples)
        adapters.add_metric(["upload"], len(cards) - samples)
        return adapters
