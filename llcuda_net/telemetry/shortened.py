"""A report of bounded size: of a server with thousands of slots the lists are cut, saying so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Most bytes of a report: each client may have one waiting to be sent.
MOST_BYTES = 128 << 10
#: The lists that are cut, the first ones first.
_LISTS = ("queue", "users", "slots_detail", "models", "upstreams")


def shortened(report: dict[str, Any], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A report whose lists lost as many entries as it takes; `cut` says how many are missing.

    Args:
        report: stays as it is.
        fits: whether one is small enough.
    """
    if fits(report):
        return report
    found = dict(report)
    found["cut"] = cut = dict(report.get("cut") or {})  # a report may be bounded itself
    for name in _LISTS:
        while not fits(found) and (lost := _halve(found, name)):
            cut[name] = cut.get(name, 0) + lost
    return found


def _halve(report: dict[str, Any], name: str) -> int:
    """Keep the first half of a list, and return how many entries are gone."""
    if name == "slots_detail":
        upstreams = [dict(one) for one in report.get("upstreams") or []]
        report["upstreams"] = upstreams
        return sum(_halve_list(one, name) for one in upstreams)
    return _halve_list(report, name)


def _halve_list(holder: dict[str, Any], name: str) -> int:
    entries = holder.get(name)
    if not isinstance(entries, list) or not entries:
        return 0
    kept = entries[: len(entries) // 2]
    holder[name] = kept
    return len(entries) - len(kept)
