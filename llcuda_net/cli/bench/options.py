"""The options that the measurements share, and what they amount to."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.bench.workload import prompts
from llcuda_net.cli.bench.tool import Tool
from llcuda_net.cli.common import Parser, fail, read_secret, read_token

if TYPE_CHECKING:
    from llcuda_net.bench.runs.settings import Settings

DEFAULT_SERVER = "127.0.0.1:9000"
#: The environment variable with the key of a server that has a URL: that of OpenAI's clients.
KEY = "OPENAI_API_KEY"


def add_target(parser: Parser, tool: Tool) -> None:
    """Which server to ask."""
    group = parser.add_argument_group("which server to ask")
    group.add_argument(
        "--target",
        metavar="URL|HOST:PORT",
        help="an OpenAI-compatible server or a llama-server by its URL, such as http://HOST:PORT/v1,"
        f" or an llcuda-server by HOST:PORT; default {DEFAULT_SERVER}",
    )
    group.add_argument("--server", dest="target", help=argparse.SUPPRESS)  # its older name
    group.add_argument(
        "--api",
        choices=("auto", "openai", "llama", "llcuda"),
        default="auto",
        help="what it is asked by: the OpenAI API, llama-server's own, llcuda's protocol; auto:"
        " OpenAI's at a URL that ends with /v1, else what it has (auto)",
    )
    group.add_argument(
        "--model", metavar="NAME", help="by the OpenAI API (default: the first that it lists)"
    )
    demo = "llcuda-server before the built-in engine with the demonstration model"
    others = "".join(f", or before a {name} upstream" for name in tool.upstreams)
    group.add_argument(
        "--start",
        choices=("demo", *tool.upstreams),
        help=f"start what is asked, and end it afterwards: {demo}{others}",
    )
    group.add_argument("--slots", type=positive, default=4, help="of what --start starts")
    group.add_argument(
        "--rate-per-slot",
        type=above_0,
        default=200.0,
        metavar="TOKENS",
        help="tokens/s of each slot of the synthetic upstream (default 200)"
        if tool.upstreams
        else argparse.SUPPRESS,
    )
    group.add_argument(
        "--durability",
        choices=("memory", "process", "disk", "strict"),
        default="disk",
        help="of the llcuda-server that --start starts (default disk)",
    )
    group.add_argument("--token-file", metavar="FILE", help="the token for llcuda-server")
    group.add_argument("--tls", action="store_true", help="speak TLS to llcuda-server")
    group.add_argument("--tls-ca", metavar="FILE", help="certificates to trust; implies --tls")
    group.add_argument(
        "--api-key-file", metavar="FILE", help=f"the key for a server with a URL (default: {KEY})"
    )
    group.add_argument(
        "--tokenizer",
        metavar="FILE|URL",
        help="what the server's count of tokens is checked by: the model's GGUF file, a"
        " tokenizer.json, or a llama-server (default: the server's own /tokenize, if it has one)",
    )
    group.add_argument("--connections", type=positive, default=1, help="to llcuda-server")


def add_request(parser: Parser) -> None:
    """What to ask."""
    group = parser.add_argument_group("what to ask")
    group.add_argument("--prompts", metavar="WHAT", help=f"{prompts.KINDS} (JSONL)")
    group.add_argument(
        "--workload",
        metavar="NAME[@VERSION]",
        help="in place of --prompts: lengths, turns and think times with sources; see `llcuda bench"
        " workloads`",
    )
    group.add_argument(
        *("--max-tokens", "--n-predict", "--n_predict"),
        dest="max_tokens",
        type=positive,
        help="of each answer (64); of a workload or trace a cap (none)",
    )
    group.add_argument(
        "--max-prompt",
        type=positive,
        metavar="TOKENS",
        help="the cap of a workload's or trace's prompts, conversations included (none)",
    )
    group.add_argument(
        "--think",
        type=at_least_0,
        default=1.0,
        metavar="FACTOR",
        help="of a workload's think times (1)",
    )
    group.add_argument(
        "--natural-ends",
        action="store_true",
        help="let answers end where the model ends them; otherwise all have the tokens asked for",
    )
    group.add_argument(
        "--cache-prompt",
        action=argparse.BooleanOptionalAction,
        help="let the upstream reuse what it has read (no; yes of workloads whose prompts share"
        " beginnings, and of traces)",
    )
    group.add_argument("--seed", type=int, default=1, help="of schedule, prompts, sampling")
    group.add_argument(
        "--timeout", type=seconds, default=120.0, help="of a request, then it is given up (120 s)"
    )


def add_trace(parser: Parser) -> None:
    """What to replay."""
    group = parser.add_argument_group("in place of what and when: a recorded trace")
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="replay moments, lengths and shared prefixes: CSV of Azure or BurstGPT, JSONL of"
        " Mooncake",
    )
    group.add_argument(
        "--trace-speed", type=above_0, default=1.0, metavar="FACTOR", help="faster by it (1)"
    )
    group.add_argument(
        "--trace-from", type=seconds, default=0.0, metavar="TIME", help="of the trace, to leave out"
    )
    group.add_argument(
        "--trace-seconds",
        type=some_seconds,
        metavar="TIME",
        help="of the trace, to replay, warm-up included (as many as --seconds take)",
    )


def what_of(options: argparse.Namespace) -> dict[str, Any]:
    """What to send, for `Request`.

    Raises:
        CommandError: two options contradict each other.
        ConfigError: there is no such workload.
    """
    from llcuda_net.bench.workload import catalogue
    from llcuda_net.bench.workload.fitting import Window

    path = getattr(options, "trace", None)
    given = [
        name
        for name, value in (
            ("--prompts", options.prompts),
            ("--workload", options.workload),
            ("--trace", path),
        )
        if value is not None
    ]
    if len(given) > 1:
        fail(f"give {given[0]} or {given[1]}, not both")
    if given in ([], ["--prompts"]):
        for name, off in (("max_prompt", None), ("think", 1.0)):
            if getattr(options, name) != off:
                fail(f"--{name.replace('_', '-')} goes with --workload or --trace")
    if path is None and hasattr(options, "trace"):
        for name, off in (("trace_speed", 1.0), ("trace_from", 0.0), ("trace_seconds", None)):
            if getattr(options, name) != off:
                fail(f"--{name.replace('_', '-')} goes with --trace")
    caches = options.cache_prompt
    trace = None
    if path is not None:
        seconds = options.trace_seconds
        trace = Window(path, options.trace_speed, options.trace_from, seconds)
    if caches is None:
        workload = None if options.workload is None else catalogue.find(options.workload)
        caches = trace is not None or (workload is not None and workload.shares)
    return {
        "prompts": prompts.DEFAULT if options.prompts is None else options.prompts,
        "workload": options.workload,
        "trace": trace,
        "max_tokens": options.max_tokens,
        "max_prompt": options.max_prompt,
        "think": options.think,
        "cache_prompt": caches,
    }


def add_kernels(parser: Parser) -> None:
    """Work on the answers."""
    group = parser.add_argument_group("work on each answer, by llcuda_kernels, shown apart")
    group.add_argument(
        "--cuda-work",
        type=positive,
        nargs="?",
        const=65_536,
        metavar="N",
        help="run the load kernel `spin` on N numbers (65536)",
    )
    group.add_argument("--cuda-iters", type=positive, default=1000, help="its rounds (1000)")
    group.add_argument(
        "--cuda-post", action="store_true", help="also run `post`, as of work done on results"
    )


def add_energy(parser: Parser) -> None:
    """What it takes, and costs."""
    group = parser.add_argument_group("energy and cost, where the server is on this machine")
    group.add_argument(
        "--energy",
        choices=("auto", "off"),
        default="auto",
        help="joules by token, of GPUs (NVML) and processors (RAPL), where they tell them (auto)",
    )
    group.add_argument(
        "--price", metavar="PRICE", help="of electricity: 0.30/kWh, or '0.30 EUR/kWh'"
    )
    group.add_argument(
        "--price-hour",
        metavar="PRICE",
        help="of an hour of the server's machine, wherever it is: 2.50, or '2.50 EUR'",
    )


def add_slo(group: argparse._ArgumentGroup) -> None:
    """The objective."""
    group.add_argument(
        "--slo", type=slo, metavar="SLO", help="objective: ttft=500ms,tpot=50ms,latency=5s"
    )


def add_output(parser: Parser, *, max_lag: str = "10ms") -> None:
    """What it takes and costs, what comes out, and what a valid run must keep to."""
    add_energy(parser)
    group = parser.add_argument_group("what comes out")
    group.add_argument("--json", type=Path, metavar="FILE", help="everything; - for stdout")
    group.add_argument("--html", type=Path, metavar="FILE", help="one self-contained page")
    group.add_argument(
        "--requests",
        type=_requests,
        metavar="FILE",
        help="every request's times, as FILE.jsonl or FILE.csv",
    )
    group.add_argument(
        "--note",
        metavar="TEXT",
        help="put into --json: what the server does not say of itself, such as its flags",
    )
    group.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="better, worse or cannot tell; 1 on worse"
    )
    group.add_argument(
        "--max-lag",
        type=seconds,
        default=max_lag,
        metavar="TIME",
        help="greatest p99 dispatch lag of a valid run (%(default)s)",
    )
    group.add_argument(
        "--no-self-test",
        action="store_true",
        help="do not measure what this client can do against a server that does nothing",
    )


def settings_of(options: argparse.Namespace, tool: Tool) -> Settings:
    """What all measurements are asked to do.

    Raises:
        CommandError: two options contradict each other.
        ConfigError: a file cannot be read.
    """
    from llcuda_net.batch.targets import tokenizer
    from llcuda_net.bench.energy.account import Wanted
    from llcuda_net.bench.energy.money import Prices
    from llcuda_net.bench.runs.settings import Access, Kernels, Request, Settings, Start

    if options.start and options.target:
        fail("give --target or --start, not both")
    if options.start and (options.api != "auto" or options.model):
        fail("--api and --model go with --target")
    start = None
    if options.start:
        upstream = tool.upstreams.get(options.start)
        start = Start(
            options.start, options.slots, options.rate_per_slot, options.durability, upstream
        )
    target = target_of(options)
    request = Request(
        **what_of(options),
        natural_ends=options.natural_ends,
        timeout=options.timeout,
        seed=options.seed,
    )
    if options.tokenizer is not None:
        tokenizer.kind_of(options.tokenizer)
    return Settings(
        server=target,
        access=Access(
            connections=options.connections,
            token=read_token(options.token_file),
            tls=options.tls,
            tls_ca=options.tls_ca,
            api_key=api_key(options, target, KEY),
            api=options.api,
            model=options.model,
            embeds=request.embeds,
        ),
        start=start,
        request=request,
        kernels=Kernels(options.cuda_work, options.cuda_iters, options.cuda_post),
        max_lag=options.max_lag,
        self_test=not options.no_self_test,
        tokenizer=options.tokenizer,
        energy=Wanted(options.energy == "auto", Prices.parse(options.price, options.price_hour)),
    )


def target_of(options: argparse.Namespace) -> str:
    """The address of what is asked: a URL, or HOST:PORT for llcuda's protocol. May be a list.

    Raises:
        CommandError: the API is none of such an address.
    """
    target: str = options.target or DEFAULT_SERVER
    addresses = target.split(",")
    if options.api == "llcuda" and any("://" in address for address in addresses):
        fail("--api llcuda takes HOST:PORT, not a URL")
    if options.api in ("openai", "llama"):
        addresses = [each if "://" in each else f"http://{each}" for each in addresses]
    if options.model and not any("://" in address for address in addresses):
        fail("--model goes with a URL, or with --api openai: an llcuda-server chooses by itself")
    return ",".join(addresses)


def api_key(options: argparse.Namespace, address: str, variable: str) -> str | None:
    """The key for a server: from --api-key-file, or else from the environment; None: no key.

    The variable is not read where no key could be sent: to what is no URL, or has a user.

    Raises:
        CommandError, ConfigError: the file cannot be read, or there is more than a key in it.
    """
    if options.api_key_file is not None:
        key = read_secret(options.api_key_file, "API key file").strip()
        return key if key.isprintable() else fail("the API key file must hold one line, the key")
    if "://" not in address or "@" in address:
        return None
    key = os.environ.get(variable, "").strip()
    return (key if key.isprintable() else fail(f"{variable} must be one line")) or None


def generates(options: argparse.Namespace) -> None:
    """Nothing, where answers are generated.

    Raises:
        CommandError: texts are embedded, which gives no tokens per second.
    """
    from llcuda_net.bench.workload import catalogue

    if options.workload is not None and catalogue.find(options.workload).answer is None:
        fail(f"--workload {options.workload} goes with llcuda bench latency")


def _requests(text: str) -> Path:
    """A file of requests, by its ending."""
    path = Path(text)
    if path.suffix not in (".jsonl", ".csv"):
        raise argparse.ArgumentTypeError(f"must end with .jsonl or .csv, not {path.name!r}")
    return path


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def above_0(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def at_least_0(text: str) -> float:
    """A number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def seconds(text: str) -> float:
    """A time: "500ms", "1.5s", "2m", or seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 500ms or 2s, not {text!r}")
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, None: 1.0}[match[2]]


def some_seconds(text: str) -> float:
    """A time above zero."""
    found = seconds(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return found


def numbers(text: str) -> list[float]:
    """Rising numbers above 0, separated by commas."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0 or sorted(set(found)) != found or math.inf in found:
        raise argparse.ArgumentTypeError("must be rising numbers above 0, such as 1,2,4")
    return found


def slo(text: str) -> dict[str, float]:
    """An objective: "ttft=500ms,tpot=50ms"; also latency=…. Seconds by metric."""
    found = {}
    for part in text.split(","):
        name, _, bound = part.partition("=")
        if name not in ("ttft", "tpot", "latency"):
            raise argparse.ArgumentTypeError(
                f"must be such as ttft=500ms,tpot=50ms (or latency=), not {text!r}"
            )
        found[name] = seconds(bound)
    return found
