"""What has been served, in Prometheus' text format.

Knows the scheduler's counts and nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sparity_edge.server.scheduler import Scheduler

COUNTS = {
    "requests": "sequences that were asked for",
    "refused": "sequences refused because too many waited",
    "cancelled": "sequences whose client went away",
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts taken over from an earlier text",
    "generated_tokens": "tokens chosen",
    "embedded_tokens": "tokens of texts made into vectors",
    "decode_passes": "passes over the weights for tokens after the first",
    "drafted_tokens": "guesses of tokens that were read",
    "accepted_tokens": "guesses that were right",
    "busy_seconds": "seconds in which the model worked",
}


class _Collector:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        for name, about in COUNTS.items():
            value = float(getattr(self._scheduler.counts, name))
            yield CounterMetricFamily(f"sparity_edge_{name}", about, value)
        kept = self._scheduler.loaded.prefixes
        if kept is not None:
            about = "tokens of prompts taken over from files of --cache-dir"
            yield CounterMetricFamily("sparity_edge_disk_tokens", about, kept.taken_tokens)
            about = "bytes of prompts written to files of --cache-dir"
            yield CounterMetricFamily("sparity_edge_disk_written_bytes", about, kept.written_bytes)
        gauges = {
            "running": (self._scheduler.running, "sequences under way"),
            "waiting": (self._scheduler.waiting, "sequences that wait"),
            "kept_cache_bytes": (self._scheduler.store.nbytes, "bytes of kept KV caches"),
        }
        for name, (number, about) in gauges.items():
            yield GaugeMetricFamily(f"sparity_edge_{name}", about, float(number))


def metrics_text(scheduler: Scheduler) -> str:
    """All counts and gauges of a scheduler, as Prometheus reads them.

    Args:
        scheduler: asked for its counts now.
    """
    registry = CollectorRegistry()
    registry.register(_Collector(scheduler))
    return generate_latest(registry).decode()
