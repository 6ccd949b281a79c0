"""What an engine is to run: a model's file, how much of it, and what is loaded with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.config.models import CACHE_TYPES, ROPE_SCALINGS
from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, RERANK, ROLES
from llcuda_net.errors import ConfigError

FLASH_ATTENTION = ("on", "off", "auto")
#: What both engines do unless they are told otherwise.
DEFAULT_ROLES = frozenset({COMPLETIONS, EMBEDDINGS})


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What to run.

    Attributes:
        model: a GGUF file; the first one, if the model was split.
        ctx: tokens of context for each slot; None for what the model was trained for, at most 4096.
        slots: how many generations run at the same time.
        threads: threads to compute with; None for all cores that this process may use, or for one
            where the model is small.
        gpu_layers: layers to hold on a GPU; None for all that fit.
        alias: the model's name in answers; None: the file's name without its ending.
        roles: what it is for, of `config.upstreams.ROLES`. Only with `rerank` does it rank.
        mmproj: the file of the projector through which the model takes images or recordings.
        lora: adapters, each with its scale.
        draft: a small model that guesses tokens which this one then only checks.
        draft_gpu_layers: layers of that to hold on a GPU; None for all that fit.
        chat_template: a file with a Jinja template in place of the model's own.
        cache_type_k, cache_type_v: of the KV cache, of `config.models.CACHE_TYPES`; None for f16.
        flash_attn: on, off, or auto.
        rope_scaling: how positions are scaled to go beyond the trained context: none, linear, yarn.
        rope_scale: factor by which that extends the context.
        rope_freq_base, rope_freq_scale: of the rotation of positions, in place of the model's own.
        yarn_orig_ctx: context that the model was trained for, in tokens, where its file is wrong.
        options: for a llama-server's command line, as they are.

    Raises:
        ConfigError: a value is out of range, or an option belongs to a setting of ours.
    """

    model: Path
    ctx: int | None = None
    slots: int = 4
    threads: int | None = None
    gpu_layers: int | None = None
    alias: str | None = None
    roles: frozenset[str] = DEFAULT_ROLES
    mmproj: Path | None = None
    lora: tuple[tuple[Path, float], ...] = ()
    draft: Path | None = None
    draft_gpu_layers: int | None = None
    chat_template: Path | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attn: str | None = None
    rope_scaling: str | None = None
    rope_scale: float | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_orig_ctx: int | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ctx", "slots", "threads", "yarn_orig_ctx"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        for name in ("gpu_layers", "draft_gpu_layers"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0, not {value}")
        for name in ("rope_scale", "rope_freq_base", "rope_freq_scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be more than 0, not {value}")
        for name, known in (
            ("cache_type_k", CACHE_TYPES),
            ("cache_type_v", CACHE_TYPES),
            ("flash_attn", FLASH_ATTENTION),
            ("rope_scaling", ROPE_SCALINGS),
        ):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if not self.roles or not self.roles <= set(ROLES):
            raise ConfigError(f"roles must be of {', '.join(ROLES)}, not {sorted(self.roles)}")
        if RERANK in self.roles and len(self.roles) > 1:
            raise ConfigError("a model with the role rerank has no other: what it gives are scores")
        if self.draft_gpu_layers is not None and self.draft is None:
            raise ConfigError("draft_gpu_layers is of a draft model, and there is none: set draft")
        for path, scale in self.lora:
            if not math.isfinite(scale):
                raise ConfigError(f"the scale of the LoRA adapter {path} must be a number")
        check_options(self.options)

    @property
    def name(self) -> str:
        """What the model is called in answers."""
        return self.alias if self.alias is not None else self.model.stem

    @property
    def extends_context(self) -> float | None:
        """By what factor the trained context is extended; None: by one that is not known."""
        if self.rope_freq_base is not None or self.yarn_orig_ctx is not None:
            return None
        if self.rope_freq_scale is not None:
            return max(1.0, 1 / self.rope_freq_scale)
        return max(1.0, self.rope_scale or 1.0)


_OURS = "llcuda sets it"
_HTTP = "llcuda-server is what clients connect to"
_LOG = "llcuda reads the log"
_FETCHES = "fetch models with llcuda models pull"
#: Options of a llama-server that are not the user's to give, and why, or what to give instead.
_REFUSED: Mapping[tuple[str, ...], str] = {
    ("-m", "--model"): "give the file with --model of llcuda-server",
    ("-mu", "--model-url", "-dr", "--docker-repo", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file",
     "-hft", "--hf-token", "--spec-draft-hf", "-hfd", "-hfrd", "--hf-repo-draft", "-mmu",
     "--mmproj-url"): _FETCHES,
    ("--models-dir", "--models-preset", "--models-max", "--models-autoload",
     "--no-models-autoload"): "give a folder of models with --models",
    ("--host", "--port", "--reuse-port", "--path", "--api-prefix", "--ssl-key-file",
     "--ssl-cert-file", "--cors-origins", "--cors-methods", "--cors-headers",
     "--cors-credentials", "--no-cors-credentials", "-to", "--timeout", "--sse-ping-interval",
     "--threads-http", "--ui", "--webui", "--no-ui", "--no-webui", "--ui-config", "--webui-config",
     "--ui-config-file", "--webui-config-file", "--ui-mcp-proxy", "--webui-mcp-proxy",
     "--no-ui-mcp-proxy", "--no-webui-mcp-proxy", "--props"): _HTTP,
    ("--api-key", "--api-key-file"): "it has a key of its own; clients' are in --auth-token-file",
    ("-c", "--ctx-size", "--kv-unified-per-slot"): "give the context of each slot with --ctx",
    ("-np", "--parallel"): "give the number of slots with --slots",
    ("-t", "--threads"): "use --threads of llcuda-server",
    ("-ngl", "--gpu-layers", "--n-gpu-layers"): "use --gpu-layers of llcuda-server",
    ("-a", "--alias", "--tags"): "give names in a [[model]] table",
    ("--embedding", "--embeddings", "--rerank", "--reranking"): "give roles in a [[model]] table",
    ("-mm", "--mmproj"): "give mmproj in a [[model]] table",
    ("--lora", "--lora-scaled", "--lora-init-without-apply"): "give lora in a [[model]] table",
    ("-md", "--model-draft", "--spec-draft-model"): "give draft in a [[model]] table",
    ("--slots", "--no-slots", "--metrics", "--offline"): _OURS,
    ("--sleep-idle-seconds",): "llcuda unloads models itself, with --idle-seconds",
    ("-v", "--verbose", "--log-verbose", "-lv", "--verbosity", "--log-verbosity", "--log-disable",
     "--log-jsonl", "--no-log-jsonl", "--log-colors", "--log-prefix", "--no-log-prefix",
     "--log-timestamps", "--no-log-timestamps", "--log-prompts-dir"): _LOG,
    ("-h", "--help", "--usage", "--version", "-cl", "--cache-list", "--completion-bash",
     "--list-devices"): "it only prints something; run the llama-server by hand",
    ("--tools", "--tools-runtime", "-ag", "--agent", "-no-ag", "--no-agent",
     "--mcp-servers-config", "--mcp-servers-json"): "tools run where the client is",
}  # fmt: skip
_WHY = {flag: why for flags, why in _REFUSED.items() for flag in flags}
#: Such as --gpt-oss-20b-default: each is another model, downloaded.
_OTHER_MODEL = re.compile(r"--(?:embd|fim|gpt-oss|vision)-\S+-(?:default|spec)")


def check_options(options: tuple[str, ...]) -> None:
    """Refuse what llcuda itself gives a llama-server.

    Raises:
        ConfigError: one of the options is not the user's to give.
    """
    for option in options:
        flag = option.partition("=")[0]
        if flag.startswith("--"):
            flag = flag.replace("_", "-")  # llama.cpp takes either
        if "\0" in option:
            raise ConfigError("an option behind -- has a NUL in it")
        why = _FETCHES if _OTHER_MODEL.fullmatch(flag) else _WHY.get(flag)
        if why is not None:
            raise ConfigError(f"{flag} is no option to give a llama-server here: {why}")
