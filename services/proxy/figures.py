"""Figures of a proxy, beside those that every service has."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds. A batch takes some 50 ms with one engine and several times that with the other."""


class Figures:
    """Counters and gauges of one app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.capsules = Counter("pcehr_capsules_reencrypted", "Capsules re-encrypted.", registry=registry)
        self.batch_seconds = Histogram(
            "pcehr_reencryption_batch_seconds",
            "Time that a worker takes to re-encrypt one batch of capsules.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.workers = Gauge("pcehr_workers", "Worker processes.", registry=registry)
        self.workers_busy = Gauge("pcehr_workers_busy", "Worker processes at work.", registry=registry)
        self.queued = Gauge("pcehr_worker_batches_queued", "Batches that wait for a worker.", registry=registry)
        self.workers_lost = Counter(
            "pcehr_workers_lost", "Pools of workers that had to be replaced.", registry=registry
        )
        self.stored = Counter("pcehr_kfrags_stored", "Kfrags stored.", registry=registry)
        erased = Counter("pcehr_kfrags_erased", "Kfrags erased.", ("reason",), registry=registry)
        self.erased_revoked = erased.labels("revoked")
        self.erased_ended = erased.labels("ended")
