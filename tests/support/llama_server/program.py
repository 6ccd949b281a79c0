"""A stand-in for the `llama-server` binary: its command line, log and exit codes.

Its HTTP is the real one: llama.cpp's server, as the built-in engine has it, runs in this process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support.llama_server.behaviour import Behaviour
from tests.support.llama_server.failures import FAILURES
from tests.support.llama_server.log import CLEANING, EXITING, LISTENING, LOADING, Diversion, log
from tests.support.llama_server.options import UsageError, parse, usage
from tests.support.llama_server.params import params


def main(program: Path, arguments: Sequence[str]) -> NoReturn:
    """Do what the command line says; `program` is the file that was started."""
    told = Behaviour.read(program.with_suffix(".behaviour"))
    try:
        options = parse(arguments, told, os.environ)
    except UsageError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if any(key in options for key in ("help", "version", "list_devices")):
        _look(told, options)
    if "model" not in options:
        print("error: the stand-in has no router mode: it needs --model", file=sys.stderr)
        sys.exit(1)
    _serve(_in_force(told, program), options)


def _look(told: Behaviour, options: dict[str, Any]) -> NoReturn:
    """Answer what asks no model."""
    if told.hang == "help":
        _stand_still()
    if told.crash == "help":
        _crash()
    if "help" in options:
        print(usage(told), end="")
    elif "version" in options:
        print(told.version, file=sys.stderr)
    else:
        print("Available devices:")
        for one in told.devices:
            sizes = f"({one.total} MiB, {one.free} MiB free)"
            print(f"  {one.name}: {one.description} {sizes}")
        if not told.devices:
            print("  (none)")
    sys.exit(0)


def _in_force(told: Behaviour, program: Path) -> Behaviour:
    """What holds for this start, which is counted."""
    path = program.with_suffix(".starts")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    starts = len(path.read_text(encoding="utf-8").splitlines())
    if told.starts is None or starts <= told.starts:
        return told
    return Behaviour(told.version, told.without, told.bare, told.old_log, told.devices)


def _serve(told: Behaviour, options: dict[str, Any]) -> NoReturn:
    if options.get("gpu_layers") is not None and not told.devices:
        print("warning: no usable GPU found, --gpu-layers option will be ignored", file=sys.stderr)
    diversion = Diversion(told)
    if told.fail or told.crash == "load" or told.hang == "load":
        _do_not_load(told, options, diversion)
    import xllamacpp

    if options.get("log_disable"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        server = xllamacpp.Server(params(xllamacpp, options))
    except (RuntimeError, OSError, ValueError):  # llama.cpp has logged why
        diversion.wait(EXITING)
        _end(1)
    diversion.wait(LISTENING)
    if told.crash == "ready":
        _crash()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server
    diversion.wait(CLEANING)
    _end(0)


def _do_not_load(told: Behaviour, options: dict[str, Any], diversion: Diversion) -> NoReturn:
    log("I", "initializing ...")
    log("I", f"loading model '{options['model']}'", source="srv    load_model")
    diversion.wait(LOADING)
    if told.hang == "load":
        _stand_still()
    if told.crash == "load":
        _crash()
    assert told.fail is not None
    for source, text in FAILURES[told.fail]:
        log("E", text.format(model=options["model"], mmproj=options.get("mmproj")), source=source)
    log("I", "operator(): cleaning up before exit...", source="srv    operator()")
    log("E", "exiting due to model loading error")
    diversion.wait(EXITING)
    _end(1)


def _end(code: int) -> NoReturn:
    """End without waiting for native threads."""
    sys.stdout.flush()
    os._exit(code)


def _crash() -> NoReturn:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(1)


def _stand_still() -> NoReturn:
    while True:
        signal.pause()
