#!/usr/bin/env python3
"""A fake llama-server: made-up tokens at a steady rate, and every fault on request.

It speaks what llama.cpp's server speaks (HTTP/1.1, keep-alive, one chunk an event) and computes
nothing, so that what stands in front of it can be tested without a model and measured without one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo
from tools.synthetic.answer import Language
from tools.synthetic.faults import KINDS, Fault
from tools.synthetic.known.server import KnownUpstream
from tools.synthetic.known.service import KINDS as SERVICES
from tools.synthetic.known.service import Service
from tools.synthetic.known.truth import truth
from tools.synthetic.pages import MODEL
from tools.synthetic.server import API_PATHS, Settings, Upstream
from tools.synthetic.written import words_of

EXAMPLE = """\
example:
  python tools/synthetic_upstream.py --port 8081 --rate 50 --slots 64
  curl -N localhost:8081/completion -d '{"prompt":"hello","n_predict":4,"stream":true}'

The first line printed is "listening on HOST:PORT". Endpoints: GET /health /props /slots, POST
/completion /apply-template /tokenize /detokenize /embedding, and GET /synthetic, which tells what
happened so far (requests, tokens, active slots, the last request). A /completion with "id_slot"
gets that slot, and waits for it where it is busy. OpenAI's: POST /v1/chat/completions
/v1/completions, GET /v1/models; --api openai leaves only these.

With --service the time that each answer takes is drawn from a law whose figures are known (all
times in seconds; slots are given out first come, first served):
SERVICES
GET /truth?rate=RATE&tokens=TOKENS tells what is true there for Poisson arrivals of RATE requests/s,
each for so many tokens: mean, p50, p90, p99 of the response time, of the first token's, of the gaps
between tokens. --print-truth RATE:TOKENS prints that. GET /truth/requests: when each request came,
began, said its first and its last token.

  python tools/synthetic_upstream.py --port 8081 --slots 256 --service fixed:3
  python tools/synthetic_upstream.py --slots 1 --service exponential:0.1 --print-truth 8:16  (M/M/1)

A fault is KIND[:K][*TIMES], TIMES the number of requests it hits. --fault sets it for all requests,
and so does POST /synthetic {"fault": FAULT} while this runs (null: none any more; on loopback
only). A /completion may ask for its own by a field, "fault": "die:5", or in its prompt, as
[[die:5*1]]. POST /synthetic {"release": true} lets go on what is held, now and later; false holds
again.
Kinds:
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    kinds = "\n".join(f"  {kind:16} {what}" for kind, what in KINDS.items())
    services = "\n".join(f"  {k + ':' + form:26} {what}" for k, (form, what) in SERVICES.items())
    out = Parser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog=EXAMPLE.replace("SERVICES", services) + kinds,
    )
    out.add_argument("--host", default="127.0.0.1")
    out.add_argument("--port", type=int, default=0, help="0 (the default): any free one")
    out.add_argument(
        "--rate", type=_not_negative, default=50.0, help="tokens/s a stream; 0: as fast as read"
    )
    arrivals = out.add_mutually_exclusive_group()
    arrivals.add_argument(
        "--sync", action="store_true", help="all streams' tokens on one tick (the default)"
    )
    arrivals.add_argument("--spread", action="store_true", help="each stream in a phase of its own")
    out.add_argument("--slots", type=_positive, default=4, help="requests at once; others wait")
    out.add_argument("--ctx", type=_positive, default=4096, help="context of a slot, in tokens")
    out.add_argument("--model", default=MODEL, metavar="NAME", help="its name (%(default)s)")
    out.add_argument("--tokens-per-event", type=_positive, default=1)
    out.add_argument("--first-token-delay", type=_not_negative, default=0.0, metavar="SECONDS")
    out.add_argument("--seed", type=int, default=0, help="of the tokens and of the phases")
    out.add_argument(
        "--text", type=_text, metavar="FILE", help="say its words, again and again, one per token"
    )
    out.add_argument(
        "--stamp",
        action="store_true",
        help="end each token's content with @ and the CLOCK_MONOTONIC nanoseconds of its emission",
    )
    out.add_argument(
        "--keepalive",
        type=_not_negative,
        default=5.0,
        metavar="SECONDS",
        help="idle connections close after (5, and after 100 requests, as llama-server; 0: never)",
    )
    out.add_argument(
        "--loading", type=_not_negative, default=0.0, metavar="SECONDS", help="status 503 so long"
    )
    out.add_argument("--api", choices=sorted(API_PATHS), default="both", help="(%(default)s)")
    out.add_argument(
        "--service", type=_service, metavar="KIND:…", help="times of known law; then no --rate"
    )
    out.add_argument(
        "--first-share",
        type=_share,
        metavar="SHARE",
        help="of an answer's time before its first token (default: tokens equally far apart)",
    )
    out.add_argument(
        "--print-truth",
        type=_asked,
        metavar="RATE[:TOKENS]",
        help="print what is true of --service at so many requests/s, and exit",
    )
    out.add_argument("--fault", type=_fault, metavar="KIND[:K][*TIMES]")
    out.add_argument("--fault-on", default="/completion", metavar="PATH")
    out.add_argument("--exit-on-eof", action="store_true", help="exit when stdin is closed")
    return out


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _text(path: str) -> tuple[str, ...]:
    try:
        return words_of(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fault(text: str) -> str:
    try:
        Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _service(text: str) -> str:
    try:
        Service.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def _asked(text: str) -> tuple[float, int]:
    rate, _, tokens = text.partition(":")
    try:
        if _not_negative(rate) > 0:
            return float(rate), _positive(tokens or "1")
    except (ValueError, argparse.ArgumentTypeError):
        pass
    raise argparse.ArgumentTypeError("must be RATE[:TOKENS], both above 0")


@contextmanager
def running(*options: str) -> Iterator[str]:
    """A synthetic upstream in a process of its own; its base URL. It ends with the block."""
    command = [sys.executable, __file__, "--exit-on-eof", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        try:
            line = it.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the synthetic upstream did not start: {line!r}")
            yield "http://" + line.split()[-1]
        finally:
            it.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, SIGINT or, where asked for, the end of stdin."""
    out = parser()
    args = out.parse_args(argv)
    if args.service is None and (args.first_share is not None or args.print_truth is not None):
        out.error("--first-share and --print-truth need --service")
    try:
        service = Service.parse(args.service, args.first_share) if args.service else None
    except ValueError as error:
        out.error(f"argument --service: {error}")
    if service is not None and args.print_truth is not None:
        echo(json.dumps(truth(service, args.slots, *args.print_truth), indent=2))
        return 0
    settings = Settings(
        host=args.host,
        port=args.port,
        rate=args.rate,
        spread=args.spread,
        slots=args.slots,
        first_token_delay=args.first_token_delay,
        keepalive=args.keepalive,
        loading=args.loading,
        fault=args.fault,
        fault_on=args.fault_on,
        api=args.api,
        language=Language(
            args.ctx, args.seed, args.tokens_per_event, args.stamp, args.model, args.text or ()
        ),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        upstream = KnownUpstream(settings, service) if service else Upstream(settings)
    except OSError as error:
        echo(f"cannot listen on {args.host}:{args.port}: {error}", file=sys.stderr)
        return 2
    if args.exit_on_eof:

        def stdin_readable() -> None:
            if not os.read(0, 4096):
                sys.exit(0)

        upstream.watch(0, stdin_readable)
    echo(f"listening on {args.host}:{upstream.port}", flush=True)
    upstream.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
