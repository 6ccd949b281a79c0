"""Metrics of the models that a server runs itself, read when metrics are scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from llcuda_net.models.serving.manager import Manager
from llcuda_net.upstream.residence import Presence
from llcuda_net.util.terminal import one_line

#: Models that have series of their own; of more, the first ones.
MOST_MODELS = 256
_MODEL = ("model",)
_KINDS = {"memory": "host", "gpu_memory": "gpu"}
#: Of each model, by the end of the metric's name: what it says, and its key in the report.
_COUNTERS = (
    ("loads", "Loads of a model since the start.", "loads"),
    ("load_failures", "Loads of a model that failed.", "failed_loads"),
    (
        "load_seconds",
        "Time that loads of a model took, those that failed left out.",
        "load_seconds",
    ),
    ("swaps", "Unloads of a model because others needed its memory.", "swaps"),
)


def of_models(manager: Manager, most_label: int) -> Iterator[Metric]:
    """How local models stand.

    Args:
        most_label: characters of a label's value.
    """
    models = {one_line(one["name"][:most_label]): one for one in manager.report()[:MOST_MODELS]}
    presence = GaugeMetricFamily(
        "llcuda_model_presence", "1 at where a model is.", labels=("model", "presence")
    )
    needed = GaugeMetricFamily(
        "llcuda_model_memory_needed_bytes",
        "Memory that a model needs when it is loaded, estimated or measured.",
        labels=("model", "kind"),
    )
    waiting = GaugeMetricFamily(
        "llcuda_model_waiting", "Requests that wait for a model.", labels=_MODEL
    )
    for name, one in models.items():
        for where in Presence:
            presence.add_metric((name, str(where)), one["presence"] == where)
        for key, kind in _KINDS.items():
            needed.add_metric((name, kind), one[key])
        waiting.add_metric((name,), one["waiting"])
    yield from (presence, needed, waiting)
    for end, help_, key in _COUNTERS:
        counted = CounterMetricFamily(f"llcuda_model_{end}", help_, labels=_MODEL)
        for name, one in models.items():
            counted.add_metric((name,), one[key])
        yield counted
    loaded = sum(one["presence"] in (Presence.LOADED, Presence.LEAVING) for one in models.values())
    yield GaugeMetricFamily("llcuda_models_loaded", "Models that are loaded.", value=loaded)
    taken, budget = manager.taken, manager.budget
    used = GaugeMetricFamily(
        "llcuda_models_memory_bytes", "Memory of all models that are there.", labels=("kind",)
    )
    most = GaugeMetricFamily(
        "llcuda_models_memory_limit_bytes",
        "What they may take together; nothing where there is no bound.",
        labels=("kind",),
    )
    for kind, size, limit in (
        ("host", taken.host, budget.host),
        ("gpu", taken.gpu, budget.gpu),
    ):
        used.add_metric((kind,), size)
        if limit is not None:
            most.add_metric((kind,), limit)
    yield from (used, most)
