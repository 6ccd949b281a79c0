"""`llcuda-client --stats`: where the time of an answer went, and how fast it was."""

from __future__ import annotations

import sys

from llcuda_net.client.events import Result
from llcuda_net.util.terminal import echo

#: The phases in the order in which a request goes through them.
_PHASES = (
    "queue",
    "template",
    "connect",
    "first_token",
    "generation",
    "persist",
)
#: Of first_token, by the llama-server's own clock, so it may be a little more.
_CONTAINED = "prompt"
#: Milliseconds between the phases that are worth a line.
_REST = 0.05


def print_stats(result: Result) -> None:
    """Where the time went and how fast it was, on stderr."""
    echo("\n".join(stats_lines(result)), file=sys.stderr, flush=True)


def stats_lines(result: Result) -> list[str]:
    """The lines of the table."""
    usage, timings = result.usage, result.timings
    lines = _times(timings)
    prompt, cached = usage.get("prompt_tokens", 0), usage.get("cached_tokens", 0)
    answer = usage.get("completion_tokens", 0)
    of_these = f", {cached} of them cached" if cached else ""
    evaluated = timings.get("prompt", 0.0)
    lines.append(f"  prompt {_tokens(prompt)}{of_these}{_rate(prompt - cached, evaluated)}")
    lines.append(f"  answer {_tokens(answer)}{_rate(answer - 1, timings.get('generation', 0.0))}")
    if result.cached:
        lines.append("  answered from the store")
    if result.splices:
        places = ", ".join(map(str, result.splices))
        lines.append(f"  continued at token {places}, after its server or upstream had stopped")
    stop = f" at {result.stop!r}" if result.stop else ""
    lines.append(f"  ended by {result.reason}{stop}; {result.model or 'model'}; {result.id}")
    return lines


def _times(timings: dict[str, float]) -> list[str]:
    """The phases, one below the other: they add up to the last line, the total."""
    parts = {phase: timings[phase] for phase in _PHASES if phase in timings}
    known = {*_PHASES, _CONTAINED, "total"}
    parts |= {phase: timings[phase] for phase in sorted(timings.keys() - known)}
    lines = [f"  {phase:<12} {_duration(spent):>10}" for phase, spent in parts.items()]
    if _CONTAINED in timings:
        within = list(parts).index("first_token") + 1 if "first_token" in parts else len(parts)
        of = "of first_token, by the llama-server's clock"
        lines.insert(within, f"    {_CONTAINED:<10} {_duration(timings[_CONTAINED]):>10}  {of}")
    if "total" in timings:
        rest = timings["total"] - sum(parts.values())
        if rest >= _REST:
            lines.append(f"  {'between':<12} {_duration(rest):>10}")
        lines.append(f"  {'total':<12} {_duration(timings['total']):>10}")
    return lines


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _rate(tokens: int, milliseconds: float) -> str:
    # A shorter time means nothing: tokens of one step arrive together.
    return f", {tokens / milliseconds * 1e3:.1f}/s" if tokens > 0 and milliseconds >= 1 else ""


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds / 1000:.2f} s "
