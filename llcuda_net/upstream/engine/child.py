"""The built-in engine's own process: llama.cpp's server, which ends with its parent.

Run by `llcuda_net.upstream.engine.process`, never by hand. What passes between the two:

- fd 0 is a pipe. Its first line is a JSON object of settings, the API key among them (a command
  line would show it to everyone). Then it stays open and silent; its end of file means that the
  parent is gone, in whatever way, and this process ends at once.
- The descriptor named by the one argument takes JSON lines: `{"event": "ready", "url": ...}`, or
  `{"event": "failed", "kind": "import" | "gpu" | "load", "message": ...}`.
- fds 1 and 2 belong to native code; the parent reads both as llama.cpp's log.

SIGINT and SIGTERM are ignored: a terminal and a service manager send them to every process of a
service, and the parent must be able to finish its streams first. Closing the pipe is what ends it.

This file imports nothing of llcuda, so that it starts fast and runs from any folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_MAX_SETTINGS = 1 << 20
RANK = 4  # llama.cpp's number of the pooling of models that rank documents
BATCH = 512  # llama.cpp embeds no input longer than this; a larger one costs memory always
SPARE_HTTP_THREADS = 8  # health, slots and embeddings are answered while every slot streams


def main() -> None:
    """Serve until the parent's pipe ends."""
    if sys.argv[1:] == ["probe"]:
        _probe()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    settings = _read_settings()
    if settings["nice"]:
        _yield_to_everybody(settings["nice"])
    pipe = _guard_pipe()
    try:
        import xllamacpp
    except Exception as error:  # a wheel for another platform fails in several ways
        _report(status, event="failed", kind="import", message=_why(error))
        sys.exit(2)
    if settings["gpu_layers"] and not _accelerators(xllamacpp):
        message = (
            f"--gpu-layers {settings['gpu_layers']}, and the built-in engine finds no GPU: leave "
            "that out, or see docs/gpu.md"
        )
        _report(status, event="failed", kind="gpu", message=message)
        sys.exit(2)
    try:
        server = xllamacpp.Server(_params(xllamacpp, settings))
    except Exception as error:
        # Stay: llama.cpp logs from a thread of its own, and an exit loses what that still holds.
        _report(status, event="failed", kind="load", message=str(error))
    else:
        _report(status, event="ready", url=server.listening_address)
    while os.read(pipe, 4096):
        pass
    os._exit(0)  # native threads are at work: end without waiting for them


def _probe() -> None:
    """Print what this wheel of llama.cpp is and can use, or why it does not run here."""
    try:
        import xllamacpp

        found: dict[str, Any] = {
            "build": int(xllamacpp.BUILD_INFO["build_number"]) or None,
            "devices": _accelerators(xllamacpp),
        }
    except Exception as error:
        found = {"error": _why(error)}
    # Native code may have printed before: this is the last line.
    output = sys.stdout.fileno()
    os.write(output, b"\n" + json.dumps(found).encode() + b"\n")
    os._exit(0)


def _why(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "xllamacpp":
        return "xllamacpp is not installed: pip install xllamacpp"
    return f"{type(error).__name__}: {error}"


def _read_settings() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data or len(line) > _MAX_SETTINGS:
            os._exit(0)
        line += data
    settings: dict[str, Any] = json.loads(line)
    return settings


def _yield_to_everybody(nice: int) -> None:
    """Compute only where nothing else would; Linux then interrupts it for anything at once."""
    os.nice(nice)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # forbidden in some containers
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _guard_pipe() -> int:
    """Take the pipe off fd 0, and have its end of file end this process even while a model loads.

    xllamacpp holds the GIL while it loads, so no Python thread could watch. Linux sends SIGIO when
    the other end closes, and unhandled it terminates; elsewhere it is ignored by default, and the
    process ends when the load does.
    """
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if hasattr(os, "O_ASYNC"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it ended before that was armed
        os._exit(0)
    return pipe


def _params(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    p = xllamacpp.CommonParams()
    p.model.path = settings["model"]
    p.model_alias = {settings["alias"]}  # so that replies do not carry a local path
    p.n_parallel = settings["slots"]
    p.n_ctx = settings["ctx"] * settings["slots"]
    # One cache for all slots, each held to its share, so that no long prompt starves the rest. With
    # a cache each, embeddings computed together come out wrong: the longer is pooled in pieces.
    p.kv_unified = True
    p.kv_unified_per_slot = settings["ctx"]
    if settings["gpu_layers"] is not None:
        p.n_gpu_layers = settings["gpu_layers"]
    threads = settings["threads"] or sensible_threads()
    if threads is not None:
        p.cpuparams.n_threads = threads
        p.cpuparams_batch.n_threads = threads
    # A multiple of the slots: mean pooling fails an assertion otherwise (llama.cpp issue 27175).
    p.n_batch = p.n_ubatch = -(-BATCH // p.n_parallel) * p.n_parallel
    p.cache_ram_mib = settings["prompt_cache"]
    p.hostnames = ["127.0.0.1"]
    p.port = 0
    p.n_threads_http = settings["slots"] + SPARE_HTTP_THREADS
    p.api_keys = [settings["api_key"]]
    p.cors_origins = "localhost"  # no page of a browser has business here; the key stops the rest
    p.ui = False
    p.offline = True
    p.embedding = settings["embeddings"] or settings["rerank"] or settings["pooling"] == RANK
    if settings["rerank"] or settings["pooling"] == RANK:  # it ranks only where it is asked to
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif settings["pooling"] is None:  # a model made for embedding names its own
        p.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    _load_beside(xllamacpp, p, settings)
    _set_cache(xllamacpp, p, settings)
    p.endpoint_slots = True
    p.endpoint_metrics = True
    p.verbosity = 2  # warnings and errors: from 3 on every request writes lines
    return p


def _load_beside(xllamacpp: Any, p: Any, settings: dict[str, Any]) -> None:
    """Projector, adapters, draft model and chat template: files that belong to the model's."""
    if settings["mmproj"] is not None:
        p.mmproj.path = settings["mmproj"]
        p.mmproj_use_gpu = settings["gpu_layers"] != 0
    adapters = []
    for path, scale in settings["lora"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, scale
        adapters.append(adapter)
    if adapters:
        p.lora_adapters = adapters
    if settings["draft"] is not None:
        p.speculative.types = [
            xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
        ]
        p.speculative.draft.mparams.path = settings["draft"]
        if settings["draft_gpu_layers"] is not None:
            p.speculative.draft.n_gpu_layers = settings["draft_gpu_layers"]
    if settings["chat_template"] is not None:
        p.chat_template = Path(settings["chat_template"]).read_text(encoding="utf-8")


def _set_cache(xllamacpp: Any, p: Any, settings: dict[str, Any]) -> None:
    """How the context is kept, and how far it reaches."""
    for name in ("cache_type_k", "cache_type_v"):
        if settings[name] is not None:
            kind = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + settings[name].upper())
            setattr(p, name, kind)
    if settings["flash_attn"] is not None:
        names = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
        kinds = xllamacpp.llama_flash_attn_type
        name = "LLAMA_FLASH_ATTN_TYPE_" + names[settings["flash_attn"]]
        p.flash_attn_type = getattr(kinds, name)
    if settings["rope_scaling"] is not None:
        name = "LLAMA_ROPE_SCALING_TYPE_" + settings["rope_scaling"].upper()
        p.rope_scaling_type = getattr(xllamacpp.llama_rope_scaling_type, name)
    if settings["rope_scale"] is not None:
        p.rope_freq_scale = 1.0 / settings["rope_scale"]
    for name in ("rope_freq_base", "rope_freq_scale", "yarn_orig_ctx"):
        if settings[name] is not None:
            setattr(p, name, settings[name])


def _accelerators(xllamacpp: Any) -> list[dict[str, Any]]:
    """The GPUs and their like: neither the CPU, nor what computes for it in the same memory."""
    kinds = xllamacpp.ggml_backend_dev_type
    host = {
        kinds.GGML_BACKEND_DEVICE_TYPE_CPU,
        getattr(kinds, "GGML_BACKEND_DEVICE_TYPE_ACCEL", None),
    }
    return [
        {
            "name": device["name"],
            "description": device["description"],
            "total": device["memory_total"],
            "free": device["memory_free"],
        }
        for device in xllamacpp.get_device_info()
        if device["type"] not in host
    ]


def sensible_threads() -> int | None:
    """How many threads to compute with, or None to leave it to llama.cpp.

    llama.cpp counts the machine's physical cores. In a container, or under an affinity mask, that
    is more than there are, and its spinning threads then starve each other.
    """
    total = os.cpu_count() or 1
    usable = total
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = min(usable, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here, or no limit ("max")
        pass
    return usable if usable < total else None


def _report(status: int, **event: object) -> None:
    os.write(status, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main()
