"""What was sent, beside what was meant to be: lines for a terminal, below the figures."""

from __future__ import annotations

from typing import Any

from llcuda_net.bench.report.cells import estimate
from llcuda_net.util.numbers import three_digits


def lines(found: dict[str, Any]) -> list[str]:
    """Lengths wanted and come, and how sessions went; none where prompts were given as texts."""
    out = []
    lengths = found.get("lengths")
    if lengths is not None:
        kinds = [(name, lengths[name]) for name in ("prompt", "answer") if lengths[name]]
        parts = [_pair(name, both) for name, both in kinds if both["wanted"] is not None]
        if parts:
            out.append(f"tokens wanted and come, mean: {'; '.join(parts)}{_caps(found)}")
    if found.get("texts_per_s") is not None:
        out.append(
            f"texts embedded: {estimate(found['texts_per_s'], '/s')}; TTFT, inter-chunk and time"
            " per token are missing: embeddings have no tokens of an answer"
        )
    sessions = found.get("sessions")
    if sessions is not None:
        out.append(
            f"sessions: {sessions['begun']} begun, {sessions['ended']} ended,"
            f" {sessions['broken']} broken by a turn without an answer,"
            f" {sessions['open']} open when the time was up"
        )
        out += [
            f"{name} turns: {_turns(sessions[name])}"
            for name in ("first", "later")
            if sessions[name]["requests"]
        ]
    return [*out, ""] if out else []


def moment(found: dict[str, Any]) -> str:
    """What a moment of a schedule started, in the plural."""
    named = (found.get("workload") or {}).get("workload") or {}
    return "sessions" if named.get("turns") else "requests"


def _pair(name: str, both: dict[str, Any]) -> str:
    wanted, came = both["wanted"], both["came"]
    heard = "not counted" if came is None else three_digits(came["mean"])
    return f"{name} {three_digits(wanted['mean'])} and {heard}"


def _caps(found: dict[str, Any]) -> str:
    workload = found["workload"] or {}
    caps = [
        f"{name} {workload[key]:,}"
        for name, key in (("prompts", "max_prompt"), ("answers", "max_tokens"))
        if workload.get(key) is not None
    ]
    return f" (at most: {', '.join(caps)})" if caps else ""


def _turns(turns: dict[str, Any]) -> str:
    ttft, prompt = turns["ttft"], turns["prompt_tokens"]
    text = f"{turns['requests']} requests"
    for name in ("mean", "p50", "p99"):
        if ttft.get(name) is not None:
            text += f", TTFT {name} {estimate(ttft[name], ' ms')}"
    if prompt:
        text += f", {turns['cached_tokens'] / prompt:.0%} of prompt tokens from the cache"
    return text
