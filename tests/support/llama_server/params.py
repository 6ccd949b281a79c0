"""Options of the command line, as parameters of the built-in engine's llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_AUTO_SLOTS = 4

#: Options that are one attribute of the parameters.
_DIRECT = {
    "batch": "n_batch",
    "cache_ram": "cache_ram_mib",
    "chat_template": "chat_template",
    "cont_batching": "cont_batching",
    "cors_origins": "cors_origins",
    "ctx": "n_ctx",
    "ctx_shift": "ctx_shift",
    "embeddings": "embedding",
    "gpu_layers": "n_gpu_layers",
    "jinja": "use_jinja",
    "kv_unified": "kv_unified",
    "main_gpu": "main_gpu",
    "metrics": "endpoint_metrics",
    "offline": "offline",
    "parallel": "n_parallel",
    "per_slot": "kv_unified_per_slot",
    "predict": "n_predict",
    "props": "endpoint_props",
    "rope_freq_base": "rope_freq_base",
    "rope_freq_scale": "rope_freq_scale",
    "slots": "endpoint_slots",
    "threads_http": "n_threads_http",
    "ubatch": "n_ubatch",
    "ui": "ui",
    "verbosity": "verbosity",
    "warmup": "warmup",
    "yarn_attn_factor": "yarn_attn_factor",
    "yarn_beta_fast": "yarn_beta_fast",
    "yarn_beta_slow": "yarn_beta_slow",
    "yarn_ext_factor": "yarn_ext_factor",
    "yarn_orig_ctx": "yarn_orig_ctx",
}


def params(xllamacpp: Any, options: dict[str, Any]) -> Any:
    """The parameters that do what the options say, with llama-server's own defaults."""
    p = xllamacpp.CommonParams()
    for key, attribute in _DIRECT.items():
        if key in options:
            setattr(p, attribute, options[key])
    p.model.path = options["model"]
    p.hostnames = options.get("host", "127.0.0.1").split(",")
    p.port = options.get("port", 8080)
    p.api_keys = [key for key in options.get("api_key", "").split(",") if key]
    if "alias" in options:
        p.model_alias = set(options["alias"].split(","))
    if options.get("verbose"):
        p.verbosity = 1 << 30
    if "timeout" in options:
        p.timeout_read = p.timeout_write = options["timeout"]
    if "fit" in options:
        p.fit_params = options["fit"] == "on"
    _slots(p, options)
    _computing(xllamacpp, p, options)
    _files(xllamacpp, p, options)
    return p


def _slots(p: Any, options: dict[str, Any]) -> None:
    if options.get("parallel", -1) < 0:
        p.n_parallel = _AUTO_SLOTS
        p.kv_unified = options.get("kv_unified", True)
    if "per_slot" in options and not options.get("ctx"):
        p.n_ctx = p.n_parallel * options["per_slot"]


def _computing(xllamacpp: Any, p: Any, options: dict[str, Any]) -> None:
    threads = options.get("threads", -1)
    if threads > 0:
        p.cpuparams.n_threads = threads
        p.cpuparams_batch.n_threads = options.get("threads_batch", threads)
    flash = xllamacpp.llama_flash_attn_type
    p.flash_attn_type = {
        "on": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        True: flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }[options.get("flash", "auto")]
    for key in ("cache_type_k", "cache_type_v"):
        if key in options:
            setattr(p, key, xllamacpp.ggml_type[f"GGML_TYPE_{options[key].upper()}"])
    if "rope_scaling" in options:
        name = f"LLAMA_ROPE_SCALING_TYPE_{options['rope_scaling'].upper()}"
        p.rope_scaling_type = xllamacpp.llama_rope_scaling_type[name]
    if "rope_scale" in options:
        p.rope_freq_scale = 1 / options["rope_scale"]
    if options.get("rerank"):
        p.embedding = True
        options = {**options, "pooling": "rank"}
    if "pooling" in options:
        name = f"LLAMA_POOLING_TYPE_{options['pooling'].upper()}"
        p.pooling_type = xllamacpp.llama_pooling_type[name]
    if p.embedding and p.n_batch > p.n_ubatch:
        p.n_batch = p.n_ubatch


def _files(xllamacpp: Any, p: Any, options: dict[str, Any]) -> None:
    if "mmproj" in options:
        p.mmproj.path = options["mmproj"]
    if "draft" in options:
        p.speculative.draft.mparams.path = options["draft"]
        kinds = xllamacpp.common_speculative_type
        p.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    if "draft_max" in options:
        p.speculative.draft.n_max = options["draft_max"]
    scaled = [(path, "1") for path in options.get("lora", "").split(",") if path]
    scaled += [
        (path, scale)
        for path, _, scale in (
            one.rpartition(":") for one in options.get("lora_scaled", "").split(",") if one
        )
    ]
    adapters = []
    for path, scale in scaled:
        adapters.append(xllamacpp.CommonAdapterLoraInfo())
        adapters[-1].path, adapters[-1].scale = path, float(scale)
    p.lora_adapters = adapters
    if "chat_template_file" in options:
        p.chat_template = Path(options["chat_template_file"]).read_text(encoding="utf-8")
    if "template_kwargs" in options:
        kwargs = json.loads(options["template_kwargs"])
        p.default_template_kwargs = {key: json.dumps(value) for key, value in kwargs.items()}
