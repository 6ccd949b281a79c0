"""How llcuda-client shows an answer: text or JSON lines on stdout, progress and times on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any, Protocol

from llcuda_net.cli.client.options import PROG
from llcuda_net.cli.tables import fit
from llcuda_net.client.stream import (
    Durable,
    Piece,
    Queued,
    Result,
    Spliced,
    TokenLogprob,
    TopToken,
)
from llcuda_net.errors import ConnectError, RequestError, request_error
from llcuda_net.sync import Stream
from llcuda_net.util.repetition import RepetitionDetector, notice
from llcuda_net.util.terminal import (
    echo,
    echo_data,
    harmless,
    is_clever,
    is_terminal,
    one_line,
    paint,
    status_line,
)

#: Width of a terminal that does not report one.
_COLUMNS = 80
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


class Output(Protocol):
    """Takes the events of one answer, in this order; `close` comes last, whatever happens."""

    def accepted(self, stream: Stream) -> None:
        """The server has taken the request."""

    def queued(self, queued: Queued) -> None:
        """The queue has moved."""

    def piece(self, piece: Piece) -> None:
        """A piece of text has come."""

    def durable(self, pieces: int) -> None:
        """So many pieces can no longer be lost."""

    def spliced(self, spliced: Spliced) -> None:
        """Another upstream generates the pieces from here on."""

    def done(self, result: Result) -> None:
        """The answer is complete."""

    def close(self) -> None:
        """No more will come: leave the terminal tidy."""


def show(stream: Stream, output: Output, *, stop: str = "Ctrl-C stops it") -> Result:
    """Show a stream to its end; a note says so where the answer repeats itself, once.

    Args:
        stop: how its reader stops the answer, for that note.

    Raises:
        what reading the stream raises; OSError if stdout cannot be written to.
    """
    detector: RepetitionDetector | None = RepetitionDetector()
    try:
        output.accepted(stream)
        for event in stream.events():
            if isinstance(event, Queued):
                output.queued(event)
            elif isinstance(event, Durable):
                output.durable(event.pieces)
            elif isinstance(event, Spliced):
                output.spliced(event)
            else:
                output.piece(event)
                if detector and (block := detector.add((event.id, event.text))) is not None:
                    detector = None
                    advice = f"{stop}; --repeat-penalty 1.1 makes it less likely"
                    print_note(PROG, f"{notice(block)}. {advice}")
        output.done(stream.result)
    finally:
        output.close()
    return stream.result


class Waiting:
    """One line on stderr while nothing has come yet; on terminals only.

    Written by hand, where `cli.progress` uses rich: importing rich would delay the first token.
    """

    def __init__(self) -> None:
        self._wanted = is_clever(sys.stderr)
        self._shown = False

    def show(self, queued: Queued) -> None:
        """Show its place in the queue, the estimated wait, and the reason."""
        if self._wanted:
            # What is wider than the terminal would wrap into a second line, which is never erased.
            line = fit(one_line(waiting_line(queued)), _columns() - 1)
            with _writing:
                status_line(paint(line, "2", sys.stderr), sys.stderr)
            self._shown = True

    def erase(self) -> None:
        """Take the line away, if it is there."""
        if self._shown:
            with _writing:
                status_line("", sys.stderr)
            self._shown = False


def waiting_line(queued: Queued) -> str:
    """The line for a person who waits."""
    if not queued.position:
        return "waiting..."
    wait = "" if queued.wait is None else f", {_about(queued.wait)}"
    reason = f": {queued.reason}" if queued.reason else ""
    return f"waiting... position {queued.position}{wait}{reason}"


def _columns() -> int:
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    return _COLUMNS


def _about(seconds: float) -> str:
    """An estimate, no more exact than it is."""
    if seconds < 99.5:
        return f"about {max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"


#: Whether the cursor stands behind an unfinished line of text. Notes come from the client's own
#: thread, so one lock guards this and the terminal.
_begun = False
_writing = threading.RLock()


def print_note(prog: str, text: str) -> None:
    """One line on stderr about the connection or the answer, on a terminal line of its own."""
    global _begun
    if sys.stderr is None:
        return
    with _writing, suppress(OSError, ValueError):
        if _begun and is_terminal(sys.stderr):
            echo(file=sys.stderr)
            _begun = False
        elif is_clever(sys.stderr):
            status_line("", sys.stderr)
        line = paint(harmless(text), "2", sys.stderr)
        echo(f"{prog}: {line}", file=sys.stderr, flush=True, styled=True)


class TextOutput:
    """The text as it comes, or all at once at the end; it always ends with a newline.

    Args:
        at_once: write nothing before the answer is complete.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._waiting = Waiting()
        self._last = ""
        self._stopped = False  # in the middle of the text, and a note has said so

    def accepted(self, stream: Stream) -> None:
        """Show that it waits."""
        self._waiting.show(Queued(stream.position, stream.wait, stream.reason))

    def queued(self, queued: Queued) -> None:
        """Show where it waits; in the middle of the text a note does."""
        if not self._last:
            self._waiting.show(queued)
        elif queued.position and not self._stopped:
            self._stopped = True
            print_note(PROG, waiting_line(queued))

    def piece(self, piece: Piece) -> None:
        """Print it."""
        if not self._at_once:
            self._write(piece.text)

    def durable(self, pieces: int) -> None:
        """Not shown in text."""

    def spliced(self, spliced: Spliced) -> None:
        """Say where: it might have continued differently; where it did, only the server knows."""
        reason = f": {one_line(spliced.reason)}" if spliced.reason else ""
        print_note(PROG, f"continued at token {spliced.position} after a failure{reason}")

    def done(self, result: Result) -> None:
        """Print what is not printed yet."""
        if self._at_once:
            self._write(result.text)
        if self._last != "\n":
            self._write("\n")

    def close(self) -> None:
        """Erase the progress; end an unfinished line on a terminal."""
        self._waiting.erase()
        if _begun:
            self._write("\n")

    def _write(self, text: str) -> None:
        global _begun
        if text:
            with _writing:
                self._waiting.erase()
                self._stopped = False
                self._last = text[-1]
                _begun = is_terminal(sys.stdout) and self._last != "\n"
                echo_data(text)


class JsonOutput:
    """One JSON object per line: accepted, queue, piece, durable, splice and done.

    Args:
        at_once: write only the last of them, with the whole text in it.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once

    def accepted(self, stream: Stream) -> None:
        """The first line: the id."""
        self._write(
            "accepted",
            id=stream.id,
            position=stream.position,
            level=stream.level,
            epoch=stream.epoch,
            cached=stream.cached,
            wait=stream.wait,
            reason=stream.reason,
        )

    def queued(self, queued: Queued) -> None:
        """A queue line."""
        self._write("queue", **queued._asdict())

    def piece(self, piece: Piece) -> None:
        """A piece line."""
        extra: dict[str, Any] = {} if piece.id is None else {"id": piece.id}
        if piece.logprobs is not None:
            extra["logprobs"] = [_logprob(token) for token in piece.logprobs]
        self._write("piece", sequence=piece.sequence, text=piece.text, **extra)

    def durable(self, pieces: int) -> None:
        """A durable line."""
        self._write("durable", count=pieces)

    def spliced(self, spliced: Spliced) -> None:
        """A splice line."""
        self._write("splice", **spliced._asdict())

    def done(self, result: Result) -> None:
        """The last line."""
        whole = {"text": result.text} if self._at_once else {}
        self._write(
            "done",
            **whole,
            reason=result.reason,
            stop=result.stop,
            id=result.id,
            model=result.model,
            usage=result.usage,
            timings=result.timings,
            splices=result.splices,
            cached=result.cached,
        )

    def close(self) -> None:
        """Nothing is left open."""

    def _write(self, event: str, **values: Any) -> None:
        if not self._at_once or event == "done":
            _print_json(event, **values)


def print_json_error(error: RequestError | ConnectError) -> None:
    """The last line after a failure: a refusal, or no connection (code `no_connection`)."""
    if isinstance(error, ConnectError):
        error = request_error("no_connection", str(error), retry=True)
    _print_json(
        "error",
        code=error.code,
        message=error.message,
        retry=error.retry,
        retry_after=error.retry_after,
    )


def _print_json(event: str, **values: Any) -> None:
    echo(json.dumps({"event": event, **values}), flush=True)


def _logprob(token: TokenLogprob | TopToken) -> dict[str, Any]:
    # The text of one token need not be whole characters; its bytes are exact.
    found: dict[str, Any] = {
        "id": token.id,
        "text": token.bytes.decode("utf-8", "replace"),
        "bytes": list(token.bytes),
        "logprob": token.logprob,
    }
    if isinstance(token, TokenLogprob):
        found["top"] = [_logprob(candidate) for candidate in token.top]
    return found


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
