"""The server's settings: one table for the command line, the environment and the config file.

A value comes from the first of: command line, LLCUDA_* variable, config file (TOML), default.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from llcuda_net.config import environment as variables
from llcuda_net.config.models import ModelSpec
from llcuda_net.config.models import parse as parse_models
from llcuda_net.config.sizes import LARGEST
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.config.upstreams import parse as parse_specs
from llcuda_net.config.values import (
    convert,
    is_database,
    parse_gpus,
    parse_name,
    parse_place,
    parse_store,
    several,
)
from llcuda_net.errors import ConfigError

#: Bytes that a server needs at least.
LEAST_MEMORY = 128 << 20
#: Above every number that can be meant.
_MOST = (1 << 31) - 1


def _option(
    default: Any,
    help_: str,
    *,
    kind: type = str,
    low: float | None = None,
    high: int = _MOST,
    choices: tuple[str, ...] | None = None,
    size: bool = False,
    metavar: str | None = None,
) -> Any:
    metadata = {
        "help": help_,
        "kind": kind,
        "low": low,
        "high": high,
        "choices": choices,
        "size": size,  # bytes, which may be written as 512M
        "metavar": metavar,  # of an option that may be given several times
    }
    return field(default=default, metadata=metadata)


#: What an --allowed-host and a --cors-origin may be: others would never match a request.
_NAME = re.compile(r"[^\s/*@]+")
_ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/]+/?")
#: The sections of --help, each by its first setting.
_SECTIONS = {
    "host": "where to listen",
    "upstream": "model",
    "data_dir": "storage",
    "name": "cluster",
    "auth_token_file": "access",
    "timeout": "time limits",
    "max_connections": "limits",
    "metrics_port": "monitoring",
    "log_level": "logs",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force, see each option's help; None stands for "not given"."""

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(
        9000, "port to listen on; 0: a free one, printed", kind=int, low=0, high=65_535
    )
    processes: int = _option(
        1,
        "processes that serve the port together, for machines of many cores: they share a "
        "PostgreSQL, that of --store or one in the data directory",
        kind=int,
        low=1,
        high=256,
    )
    http: bool = _option(
        True, "answer HTTP, the APIs of OpenAI and Anthropic, on the port, too", kind=bool
    )
    page: bool = _option(True, "over HTTP, serve the page for browsers, at /", kind=bool)
    upstream: tuple[UpstreamSpec, ...] = _option(
        (),
        "URL of a llama-server that already runs; may be given several times. Tables in the config "
        "file describe each further",
        kind=UpstreamSpec,
        metavar="URL",
    )
    upstream_api_key_file: str | None = _option(None, "file with the API key of the upstreams")
    default_model: str | None = _option(
        None,
        "model that answers over HTTP where a request names one that is not served (default: where "
        "only one is served, that one; else such requests are refused)",
    )
    lenient: bool = _option(
        False,
        "over HTTP, ignore fields that are not supported, though they may change the answer",
        kind=bool,
    )
    model: tuple[ModelSpec, ...] = _option(
        (),
        "model to run and to load at the start: a GGUF file, a name in the models folder, or a "
        "short name such as smollm2; may be given several times. Tables in the config file "
        "describe each further (default: those of --models, else the demonstration model)",
        kind=ModelSpec,
        metavar="MODEL",
    )
    models: str | None = _option(
        None,
        "folder of GGUF files, each a model that is loaded when a request names it; llcuda models "
        "pull puts them there",
    )
    engine: str = _option(
        "auto",
        "what runs models: builtin, the path of a llama-server, or auto: a llama-server on the "
        "PATH where only that can use this machine's GPU, else builtin; options for it follow --",
    )
    engine_options: tuple[str, ...] = _option((), "options of llama-server")
    ctx: int | None = _option(
        None,
        "tokens of context for each slot (default: the model's, at most 4096)",
        kind=int,
        low=1,
    )
    slots: int = _option(4, "requests that run at once on a model", kind=int, low=1)
    threads: int | None = _option(
        None,
        "CPU threads of a model (default: one per core; one in all for a tiny model)",
        kind=int,
        low=1,
    )
    gpu_layers: int | None = _option(
        None, "layers to keep on the GPU (default: all that fit)", kind=int, low=0
    )
    memory: int | None = _option(
        None,
        "what all models that are loaded may take of the machine's memory, such as 24G: what a "
        "request needs beyond that takes the place of one that is idle (default: nine tenths)",
        kind=int,
        low=0,
        high=LARGEST,
        size=True,
    )
    gpu_memory: int | None = _option(
        None,
        "the same of GPU memory (default: nine tenths of what is free at the start)",
        kind=int,
        low=0,
        high=LARGEST,
        size=True,
    )
    idle_seconds: float | None = _option(
        None,
        "seconds without a request after which a model is unloaded (default: when another one "
        "needs its memory)",
        kind=float,
        low=1,
        high=10**9,
    )
    yes: bool = _option(False, "download without asking a model that --model names", kind=bool)
    data_dir: str | None = _option(
        None, "folder of the journal and the results (default: the platform's data folder)"
    )
    data_dir_shared: bool = _option(
        False,
        "use a data folder that others can read, or that belongs to somebody else",
        kind=bool,
    )
    store: str = _option(
        "sqlite",
        "where results are kept: sqlite, the URL of a PostgreSQL database, whose password is best "
        "in ~/.pgpass (postgresql://user@host/name), or none to keep nothing",
    )
    durability: str = _option(
        "disk",
        "what an acknowledged token survives: memory, process, disk, strict or, with a database "
        "of several servers, cluster, which is the default there",
        choices=("memory", "process", "disk", "strict", "cluster"),
    )
    transient_seconds: float = _option(
        600.0,
        "seconds for which an answer that is not to be stored (x-llcuda-store: false) can be read "
        "after its end; then it is erased",
        kind=float,
        low=1,
        high=10**9,
    )
    analysis: bool = _option(
        True,
        "while nothing runs, compute for each result how sure the model was, and an embedding",
        kind=bool,
    )
    analysis_gpus: str = _option(
        "all",
        "GPUs that search results by meaning: all, none (the CPU searches), or numbers such as 0,1",
    )
    name: str | None = _option(
        None, "with PostgreSQL: what to call this server among the others (default: the host's)"
    )
    advertise: str | None = _option(
        None,
        "with PostgreSQL: HOST:PORT at which the other servers reach this one (default: where it "
        "listens)",
    )
    auth_token_file: str | None = _option(
        None,
        "file of tokens, one per line, each with its user and their limits; a client must send one",
    )
    allow_no_auth: bool = _option(
        False, "listen beyond loopback without a token file: anybody may use it", kind=bool
    )
    allowed_host: tuple[str, ...] = _option(
        (),
        "without a token file: a name of this machine in HTTP requests, such as "
        "host.docker.internal, beside localhost; may be given several times",
        metavar="NAME",
    )
    cors_origin: tuple[str, ...] = _option(
        (),
        "origin whose web pages may use the server, such as https://chat.example; * for all, with "
        "a token file only; may be given several times",
        metavar="ORIGIN",
    )
    tls_cert: str | None = _option(None, "certificate chain (PEM); turns TLS on")
    tls_key: str | None = _option(None, "private key (PEM) of the certificate")
    timeout: float = _option(600.0, "seconds for a whole request", kind=float, low=0.001)
    disconnect_seconds: float = _option(
        30.0,
        "seconds that a generation goes on when its client's connection is lost; a request may "
        "say otherwise",
        kind=float,
        low=0,
    )
    stall_timeout: float = _option(
        60.0,
        "seconds without a token, once tokens flow, before the upstream is given up",
        kind=float,
        low=0.001,
    )
    first_token_timeout: float = _option(
        120.0,
        "the same before the first token; a tenth of a second more per token of the prompt",
        kind=float,
        low=0.001,
    )
    failover_seconds: float = _option(
        60.0,
        "seconds that a request waits while no upstream has its model, before it fails",
        kind=float,
        low=0,
    )
    ageing_seconds: float = _option(
        30.0,
        "seconds of waiting behind better priorities that lift a request into the next one",
        kind=float,
        low=0.001,
    )
    drain_seconds: float = _option(
        30.0, "seconds for running requests to finish after SIGTERM", kind=float, low=0
    )
    handshake_timeout: float = _option(
        5.0, "seconds for a client to complete the handshake", kind=float, low=0.001
    )
    write_timeout: float = _option(
        30.0, "seconds that a client may read nothing before it is dropped", kind=float, low=0.001
    )
    max_connections: int = _option(1024, "clients connected at once", kind=int, low=1)
    max_queue: int = _option(
        256,
        "requests that may wait for a slot; beyond that, one per user",
        kind=int,
        low=0,
    )
    max_long_prompts: int = _option(
        1,
        "long prompts that one upstream reads at once: they hold up all its slots",
        kind=int,
        low=1,
    )
    max_streams: int = _option(256, "requests open at once on one connection", kind=int, low=1)
    max_frame: int = _option(
        4 << 20, "largest frame accepted, in bytes", kind=int, low=16_384, high=1 << 30
    )
    max_body: int = _option(
        24 << 20,
        "largest body of an HTTP request, such as 8M; less where --memory-limit leaves less",
        kind=int,
        low=1024,
        high=1 << 30,
        size=True,
    )
    max_file: int = _option(
        200 << 20,
        "largest file that a client may upload, such as 200M",
        kind=int,
        low=1024,
        high=LARGEST,
        size=True,
    )
    max_user_files: int = _option(
        10 << 30,
        "what the files of one user may take, such as 10G; the token file may say otherwise",
        kind=int,
        low=0,
        high=LARGEST,
        size=True,
    )
    memory_limit: int | None = _option(
        None,
        "memory that the server may take, the engine apart, such as 512M or 2GiB; what would take "
        "more is refused (default: half of what the control group may, else 1 GiB)",
        kind=int,
        low=LEAST_MEMORY,
        high=LARGEST,
        size=True,
    )
    metrics_port: int | None = _option(
        None,
        "port for /metrics (Prometheus), /healthz and /readyz; 0: a free one, printed (default: "
        "none)",
        kind=int,
        low=0,
        high=65_535,
    )
    metrics_host: str = _option(
        "127.0.0.1", "address for these; whoever can reach it may read them, without a token"
    )
    metrics_users: bool = _option(
        False, "metrics of each user too, by the names of the token file", kind=bool
    )
    otlp_endpoint: str | None = _option(
        None, "OpenTelemetry collector for a trace of each generation (http://127.0.0.1:4318)"
    )
    log_level: str = _option(
        "info", "debug, info, warning or error", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _option(
        "auto", "human, json, or auto: human on a terminal", choices=("auto", "human", "json")
    )
    log_prompts: bool = _option(False, "write the text of prompts to the log", kind=bool)


def _shell_words(value: Any, where: str) -> tuple[str, ...]:
    """Options of a program: a list of them, or text as a shell splits it. Raises ConfigError."""
    try:
        found = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ConfigError(f"{where} cannot be split into words: {error}") from None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{where} must be a list of strings, not {value!r}")
    return tuple(found)


#: Settings whose values are more than one word, or more than words.
_PARSERS: dict[str, Callable[[Any, str], Any]] = {
    "upstream": parse_specs,
    "model": parse_models,
    "engine_options": _shell_words,
    "store": parse_store,
    "advertise": parse_place,
    "name": parse_name,
    "analysis_gpus": parse_gpus,
}
_METAVARS = {
    "analysis_gpus": "GPUS",
    "default_model": "NAME",
    "data_dir": "DIR",
    "models": "DIR",
    "engine": "ENGINE",
    "store": "STORE",
    "name": "NAME",
    "advertise": "HOST:PORT",
    "durability": "LEVEL",
    "host": "ADDRESS",
    "metrics_host": "ADDRESS",
    "otlp_endpoint": "URL",
    "log_level": "LEVEL",
    "log_format": "FORMAT",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option per setting, and --config."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with the same settings")
    section = parser.add_argument_group()
    parser.set_defaults(engine_options=None)  # not an option: see `split_options`
    for spec in fields(Settings):
        if spec.name in _SECTIONS:
            section = parser.add_argument_group(_SECTIONS[spec.name])
        if spec.name == "engine_options":
            continue
        flag = _flag(spec.name)
        kind = spec.metadata["kind"]
        text = spec.metadata["help"]
        if spec.default not in (None, False, MISSING, ()):
            shown = f"{spec.default:g}" if isinstance(spec.default, float) else spec.default
            text += f" (default: {shown})"
        if spec.default == ():
            meta = spec.metadata["metavar"]
            section.add_argument(flag, metavar=meta, action="append", default=None, help=text)
        elif kind is bool:
            section.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        else:
            meta = {int: "BYTES" if spec.metadata["size"] else "N", float: "SECONDS"}.get(
                kind, _METAVARS.get(spec.name, "FILE")
            )
            section.add_argument(
                flag, metavar=meta, default=None, help=text, choices=spec.metadata["choices"]
            )


def split_options(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What stands before `--`, and behind it: options of llama-server; None where there is none."""
    words = list(argv)
    if "--" not in words:
        return words, None
    place = words.index("--")
    return words[:place], words[place + 1 :]


def load(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force.

    Raises:
        ConfigError: a value is wrong; the message names it, its source, and what it may be.
    """
    for name, near in unknown_variables(environment).items():
        if near is not None:
            raise ConfigError(variables.told(name, near))
    config_file = arguments.config or environment.get("LLCUDA_CONFIG")
    from_file = _read(Path(config_file)) if config_file else {}
    values: dict[str, Any] = {}
    sources: dict[str, int] = {}
    for spec in fields(Settings):
        variable = "LLCUDA_" + spec.name.upper()
        flag = _flag(spec.name)
        given = getattr(arguments, spec.name)
        if given is not None:
            sources[spec.name], value, where = 1, given, flag
        elif environment.get(variable):
            sources[spec.name], value, where = 2, environment[variable], variable
        elif spec.name in from_file:
            sources[spec.name], value = 3, from_file[spec.name]
            where = f"{spec.name} in {config_file}"
        else:
            continue
        parse = _PARSERS.get(spec.name)
        if parse is not None:
            values[spec.name] = parse(value, where)
            continue
        if spec.default == ():
            values[spec.name] = several(value, where)
            continue
        values[spec.name] = convert(spec.metadata, value, where)
    for name in ("model", "models"):
        # One replaces the other, so the order of the sources decides between them, too.
        if values.get("upstream") and values.get(name):
            if sources["upstream"] < sources[name]:
                del values[name]
            elif sources[name] < sources["upstream"]:
                del values["upstream"]
    if values.get("upstream"):
        _check_engine_settings(values, sources)
    if is_database(values.get("store")):
        values.setdefault("durability", "cluster")
    settings = Settings(**values)
    _check(settings)
    return settings


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """LLCUDA_* variables that nothing reads; see environment.unknown."""
    return variables.unknown(environment, [spec.name for spec in fields(Settings)])


#: Settings of models that the server runs, and what a llama-server has in their place.
_OF_MODELS = {
    "ctx": "--ctx-size",
    "slots": "--parallel",
    "threads": "--threads",
    "gpu_layers": "--n-gpu-layers",
    "engine": "",
    "engine_options": "these options",
    "memory": "",
    "gpu_memory": "",
    "idle_seconds": "--sleep-idle-seconds",
}


def _check_engine_settings(values: dict[str, Any], sources: Mapping[str, int]) -> None:
    """Refuse what would do nothing beside upstreams; drop what these replace.

    Raises:
        ConfigError: one was given where the upstreams were, or nearer to the command line.
    """
    for name, option in _OF_MODELS.items():
        if name not in values:
            continue
        if sources[name] <= sources["upstream"]:
            flag = "what stands behind --" if name == "engine_options" else _flag(name)
            instead = f": start the llama-server with {option}" if option else ""
            more = "; to use fewer slots than it has, write slots in its [[upstream]] table"
            raise ConfigError(
                f"{flag} is for models that the server runs itself and does nothing beside "
                f"--upstream{instead}{more if name == 'slots' else ''}"
            )
        del values[name]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # both of its decoding errors are ValueErrors
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = {spec.name for spec in fields(Settings)}
    found = {name.replace("-", "_"): value for name, value in found.items()}
    for name in found:
        if name not in known:
            raise ConfigError(f"{path}: there is no setting {name!r}; llcuda-server --help has all")
    return found


def _check(settings: Settings) -> None:
    # Several processes have a database in any case.
    database = is_database(settings.store) or settings.processes > 1
    if not database:
        for name in ("name", "advertise"):
            if getattr(settings, name) is not None:
                raise ConfigError(
                    f"{_flag(name)} is for servers that share a database: give --store "
                    "postgresql://user@host/name, too"
                )
    if settings.models is not None and not settings.models.strip():
        raise ConfigError("--models must be a folder, not ''")
    if not settings.engine.strip():
        raise ConfigError("--engine must be auto, builtin or the path of a llama-server, not ''")
    if settings.upstream and (settings.model or settings.models):
        raise ConfigError(
            f"give --upstream or {'--model' if settings.model else '--models'}, not both"
        )
    if settings.durability == "cluster" and not database:
        raise ConfigError(
            "--durability cluster needs a database that several servers share: give --store "
            "postgresql://…, or choose strict"
        )
    if "*" in settings.cors_origin and settings.auth_token_file is None:
        raise ConfigError(
            "--cors-origin '*' lets every web page use the server: name the origins, or give an "
            "--auth-token-file"
        )
    for name in settings.allowed_host:
        if not _NAME.fullmatch(name) or name.count(":") == 1:
            raise ConfigError(
                f"--allowed-host is a name alone, such as host.docker.internal, not {name!r}"
            )
    for origin in settings.cors_origin:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                "--cors-origin is a scheme and a host, such as https://chat.example, not "
                f"{origin!r}"
            )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ConfigError("--tls-cert and --tls-key go together; give both or neither")
