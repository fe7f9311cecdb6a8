"""Prometheus metrics, right over several processes: each writes files in PROMETHEUS_MULTIPROC_DIR, all are summed."""

import os
import struct
from collections.abc import Iterator, Sequence
from functools import cache, partial
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from recsys.serving.monitored import Sample

_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


def _counting(base: Any) -> Any:
    """A class of figures in the files, of a process that does not fork, which counts in a quarter of the time."""
    one_at_a_time = Lock()
    pack = struct.Struct("dd").pack  # the figure, and when it was, which only gauges say

    class Value(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            start = self._file._positions[self._key]
            self._place = slice(start, start + 16)

        def inc(self, amount: float) -> None:
            with one_at_a_time:
                self._value += amount
                self._file._m[self._place] = pack(self._value, 0.0)  # whole, as another process may read it now

    return Value


class Metrics:
    """What a worker counts. Labels are routes, statuses, versions, arms and policies: never ids."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        if values.ValueClass._multiprocess:  # by itself it asks the system for its process with every figure
            values.ValueClass = _counting(values.MultiProcessValue(partial(int, os.getpid())))  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "recsys_requests_total", "Requests", ["route", "status", "version", "arm"], registry=own
        )
        self._seconds = Histogram(
            "recsys_request_seconds",
            "Seconds from request to reply",
            ["route", "version", "arm"],
            buckets=_BUCKETS,
            registry=own,
        )
        self._lists = Counter("recsys_lists_total", "Lists by policy", ["policy", "version", "arm"], registry=own)
        self._stages = Histogram(
            "recsys_stage_seconds", "Seconds of the parts of a list", ["stage"], buckets=_BUCKETS, registry=own
        )
        self._fallbacks = Counter(
            "recsys_fallback_total", "Lists of what is popular, by reason", ["reason", "version", "arm"], registry=own
        )
        self.unknown_users = Counter("recsys_unknown_users_total", "Requests for users unknown to it", registry=own)
        self.feedback = Counter("recsys_feedback_total", "Events that are on the disk", ["outcome"], registry=own)
        self.record = Counter("recsys_record_total", "Lists of the record", ["outcome"], registry=own)
        self.refused = Counter("recsys_refused_total", "Requests refused", ["reason"], registry=own)
        self._kept_lists = Counter(
            "recsys_kept_lists_total",
            "Lists that could have been kept ones, by whether they were",
            ["outcome"],
            registry=own,
        )
        self.failed = Counter(
            "recsys_trial_failures_total",
            "Lists of a trial that the arm's version could not make",
            ["arm"],
            registry=own,
        )
        self.swaps = Counter("recsys_version_swaps_total", "Changes of version", registry=own)
        self._info = Gauge(
            "recsys_model_info",
            "1 for the version served",
            ["version", "family"],
            registry=own,
            multiprocess_mode="max",
        )
        self.registry_up = Gauge(
            "recsys_registry_up", "1 while the registry answers", registry=own, multiprocess_mode="min"
        )
        self.unshared = Gauge(
            "recsys_feedback_unshared",
            "Events that wait for the team's database",
            registry=own,
            multiprocess_mode="mostrecent",
        )
        # A label's child is looked up under a lock: these are remembered.
        self.requests = cache(lambda *labels: self._requests.labels(*labels))
        self.seconds = cache(lambda *labels: self._seconds.labels(*labels))
        self.lists = cache(lambda *labels: self._lists.labels(*labels))
        self.stages = cache(lambda *labels: self._stages.labels(*labels))
        self.kept_lists = cache(lambda *labels: self._kept_lists.labels(*labels))
        self.fallbacks = cache(lambda *labels: self._fallbacks.labels(*labels))

    def serve(self, version: str, family: str, before: tuple[str, str] | None) -> None:
        """Say which version is served from now on."""
        if before is not None and before != (version, family):
            self._info.labels(*before).set(0)
            self.swaps.inc()
        self._info.labels(version, family).set(1)


def exposition(samples: Sequence[Sample] = ()) -> bytes:
    """The sum over all processes, as Prometheus reads it, and gauges beside."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    beside = CollectorRegistry()
    beside.register(_Given(samples))
    return generate_latest(registry) + generate_latest(beside)


class _Given(Collector):
    """Gauges whose values are known."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, says, labels, value in self._samples:
            family = families.setdefault(name, GaugeMetricFamily(name, says, labels=list(labels)))
            family.add_metric([str(text) for text in labels.values()], value)
        yield from families.values()
