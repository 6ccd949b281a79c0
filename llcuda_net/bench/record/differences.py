"""What two documents are of: whether it is the same, and where not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llcuda_net.bench.record.seal import abouts

#: Of the machine and of a model, what makes figures another thing.
_MACHINE = ("processor", "cores", "core_limit", "memory_limit_gib")
_MODEL = ("sha256", "quantisation", "parameters")
_SERVED = ("context", "slots")
#: Members of settings that follow from others.
_WIDTH = 60


def obstacles(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why the two cannot be compared: one line each, what makes both useless first."""
    found = []
    if old["measurement"] != new["measurement"]:
        found.append(f"the old one is of {old['measurement']}, the new one of {new['measurement']}")
    return [*found, *invalid(old, new), *unlike(old, new)]


def invalid(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Which of the two does not count."""
    return [
        f"the {which} run was INVALID: {document['problems'][0]}"
        for which, document in (("old", old), ("new", new))
        if document["problems"]
    ]


def unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In what the two are not of the same: settings, workload, machine, GPUs, model."""
    found = []
    for name in sorted({*old["settings"], *new["settings"]}):
        a, b = old["settings"].get(name), new["settings"].get(name)
        if a != b:
            found.append(f"{name} differs: {_short(a)} and {_short(b)}")
    if _sent(old) != _sent(new) and not found:
        found.append("what is sent differs: it has another digest")
    for name in _MACHINE:
        a, b = old["machine"].get(name), new["machine"].get(name)
        if a != b:
            found.append(f"the machines differ: {name} {_short(a)} and {_short(b)}")
    a, b = _devices(old), _devices(new)
    if a != b:
        found.append(f"the GPUs differ: {_short(a)} and {_short(b)}")
    for path, one, other in _served(old, new):
        where = "" if path in ("server", "gateway", "") else f" of {path}"
        for name in _MODEL:
            a, b = one["model"][name], other["model"][name]
            # What one of them does not say is no difference, but no proof of sameness: see `notes`.
            if a is not None and b is not None and a != b:
                found.append(f"the models{where} differ: {name} {_short(a)} and {_short(b)}")
        for name in _SERVED:
            a, b = one[name], other[name]
            if a is not None and b is not None and a != b:
                found.append(f"the servers{where} differ: {name} {_short(a)} and {_short(b)}")
    return found


def notes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs besides, or is not known: it may be what is compared, and it may explain."""
    found = []
    for path, one, other in _served(old, new):
        where = "" if path in ("server", "gateway", "") else f" of {path}"
        for name in ("software", "version", "flags", "chat_template_sha256"):
            if one[name] != other[name]:
                found.append(
                    f"{name}{where} differs: {_short(one[name])} and {_short(other[name])}"
                )
        if one["model"]["sha256"] is None or other["model"]["sha256"] is None:
            a, b = one["model"]["name"], other["model"]["name"]
            found.append(
                f"whether the models{where} are the same file is not known:"
                f" {_short(a)} and {_short(b)}"
            )
    for name in ("system", "governor", "max_clock_mhz", "container", "hypervisor"):
        a, b = old["machine"].get(name), new["machine"].get(name)
        if a != b:
            found.append(f"{name} differs: {_short(a)} and {_short(b)}")
    for name in ("driver", "cuda"):
        a, b = old["gpus"][name], new["gpus"][name]
        if a != b:
            found.append(f"{name} differs: {_short(a)} and {_short(b)}")
    if old["source"]["commit"] != new["source"]["commit"]:
        a, b = (each["source"]["commit"] or "unknown" for each in (old, new))
        found.append(f"llcuda's commit differs: {a[:12]} and {b[:12]}")
    for which, document in (("old", old), ("new", new)):
        if document["source"]["modified"]:
            found.append(f"the {which} run was of an llcuda with changes that are in no commit")
    return found


def _served(
    old: dict[str, Any], new: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Pairs of what the two say of their servers, way by way."""
    one, other = _by_path(old), _by_path(new)
    for path, facts in one.items():
        # A server that is compared with a gateway before it is the same way.
        same = path if path in other else next(iter(other), None) if path != "direct" else None
        if same is not None and same in other:
            yield path, facts, other[same]


def _by_path(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    if "paths" in document:
        return {path: each["about"]["facts"] for path, each in document["paths"].items()}
    first = next(abouts(document), None)
    return {} if first is None else {"": first["facts"]}


def _sent(document: dict[str, Any]) -> str | None:
    sent = document["sent"]
    return None if sent is None else sent["sha256"]


def _devices(document: dict[str, Any]) -> list[Any]:
    return [
        [each["name"], each["memory_gib"], each["power_limit_watts"]]
        for each in document["gpus"]["devices"] or ()
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
