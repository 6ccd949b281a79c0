"""What a server says of itself and of its model, for records: nothing is guessed.

Every kind of server tells other things in other places; here each becomes the same map. What is not
told is None, and `unknown` names it with the reason. No I/O: `asking` asks.

Sources: llama.cpp's tools/server/README.md (/props, /v1/models); Ollama's docs/api.md
(/api/version, /api/show, /api/tags); vLLM's OpenAI-compatible server (/version, `max_model_len`);
LM Studio's REST API (/api/v0/models).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePath
from typing import Any

#: Asks for a JSON object by path, with a body by POST; empty where the server gives none.
JsonOf = Callable[[str, Any], Awaitable[dict[str, Any]]]

_SILENT = "the server does not say"
_FLAGS = "the server does not tell how it was started"
#: How URLs of a server's own machine begin.
_HERE = ("http://127.", "http://localhost", "http://[::1]")
#: Characters of a chat template that are hashed.
_TEMPLATE = 1 << 20
#: Of the model, what is asked for.
MODEL = (
    *("name", "file", "sha256", "digest", "size", "quantisation", "parameters"),
    *("context_trained", "architecture"),
)
#: What llama-server says of how it was started, besides slots and context.
_LLAMA_FLAGS = (
    "endpoint_slots",
    "endpoint_props",
    "endpoint_metrics",
    "webui",
    "ui",
    "is_sleeping",
)


def facts(
    software: str | None,
    version: str | None,
    model: Mapping[str, Any],
    *,
    why: Mapping[str, str] | None = None,
    **known: Any,
) -> dict[str, Any]:
    """The map, with what is not known named.

    Args:
        model: what is known of the model, by MODEL's names.
        why: reasons by name ("model.sha256"), where it is another than that the server is silent.
        known: context, slots, chat_template_sha256, flags, upstreams.
    """
    found: dict[str, Any] = {
        "software": software,
        "version": version or None,
        "model": {name: model.get(name) or None for name in MODEL},
        "context": known.get("context"),
        "slots": known.get("slots"),
        "chat_template_sha256": known.get("chat_template_sha256"),
        "flags": known.get("flags"),
        "upstreams": known.get("upstreams"),
    }
    reasons = {"flags": _FLAGS, "upstreams": "it says of no servers behind it", **(why or {})}
    names = [name for name, value in found.items() if value is None]
    names += [f"model.{name}" for name, value in found["model"].items() if value is None]
    found["unknown"] = {name: reasons.get(name, _SILENT) for name in names}
    return found


async def of_llama(ask: JsonOf) -> dict[str, Any]:
    """A llama-server, by its /props and its list of models."""
    props, models = await ask("/props", None), await ask("/v1/models", None)
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    meta = _map(first, "meta")
    settings = _map(props, "default_generation_settings")
    path = _text(props, "model_path")
    template = _text(props, "chat_template", _TEMPLATE)
    params = _map(settings, "params")
    flags = {name: props[name] for name in _LLAMA_FLAGS if isinstance(props.get(name), bool)}
    for name in ("speculative.types", "lora"):
        if isinstance(params.get(name), (str, list)):
            flags[name] = params[name]
    quantisation = _text(props, "model_ftype") or _text(meta, "ftype")
    return facts(
        "llama-server",
        _text(props, "build_info"),
        {
            "name": _text(props, "model_alias") or _name(path) or _text(first, "id"),
            "file": path,
            "size": _count(meta, "size"),
            "quantisation": quantisation,
            "parameters": _count(meta, "n_params"),
            "context_trained": _count(meta, "n_ctx_train"),
        },
        why={"model.digest": "only Ollama has one"},
        context=_count(settings, "n_ctx"),
        slots=_count(props, "total_slots"),
        chat_template_sha256=_hash(template),
        flags=flags or None,
    )


async def of_openai(ask: JsonOf, model: str) -> dict[str, Any]:
    """A server by OpenAI's API: which it is, and what it says beyond that API."""
    models = await ask("/v1/models", None)
    data = models.get("data")
    listed = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    own = next((each for each in listed if each.get("id") == model), {})
    owner = _text(own, "owned_by")
    if owner == "llamacpp":
        return await of_llama(ask)
    if owner == "llcuda":
        return await _llcuda(ask, own)
    if owner == "vllm":
        version = _text(await ask("/version", None), "version")
        told = {"name": model, "file": _text(own, "root")}
        return facts("vLLM", version, told, context=_count(own, "max_model_len"))
    version = _text(await ask("/api/version", None), "version")
    if version:
        return await _ollama(ask, model, version)
    return await _other(ask, model)


async def _ollama(ask: JsonOf, model: str, version: str) -> dict[str, Any]:
    show = await ask("/api/show", {"model": model})
    tags = (await ask("/api/tags", None)).get("models")
    tag = next(
        (
            each
            for each in (tags if isinstance(tags, list) else [])
            if isinstance(each, dict) and each.get("name") in (model, f"{model}:latest")
        ),
        {},
    )
    details, info = _map(show, "details"), _map(show, "model_info")
    architecture = _text(info, "general.architecture")
    return facts(
        "Ollama",
        version,
        {
            "name": model,
            "digest": _text(tag, "digest"),
            "size": _count(tag, "size"),
            "quantisation": _text(details, "quantization_level"),
            "parameters": _count(info, "general.parameter_count"),
            "context_trained": _count(info, f"{architecture}.context_length"),
            "architecture": architecture or _text(details, "family"),
        },
        chat_template_sha256=_hash(_text(show, "template", _TEMPLATE)),
    )


async def _llcuda(ask: JsonOf, own: dict[str, Any]) -> dict[str, Any]:
    status = await ask("/v1/status", None)
    found = of_gateway(status)
    known = _map(own, "fingerprint")
    told = {
        "name": _text(own, "id"),
        "sha256": _text(known, "hash"),
        "size": _count(known, "size"),
        "quantisation": _text(known, "quantisation"),
    }
    model = {name: told.get(name) or value for name, value in found["model"].items()}
    return facts(
        "llcuda-server",
        found["version"],
        model,
        context=_count(own, "context_length") or found["context"],
        slots=_count(own, "slots") or found["slots"],
        flags=found["flags"],
        upstreams=found["upstreams"],
    )


async def _other(ask: JsonOf, model: str) -> dict[str, Any]:
    """LM Studio says the most of the others; of the rest only the model's name is known."""
    data = (await ask("/api/v0/models", None)).get("data")
    own = next(
        (
            each
            for each in (data if isinstance(data, list) else [])
            if isinstance(each, dict) and each.get("id") == model
        ),
        None,
    )
    if own is None:
        return facts(None, None, {"name": model})
    told = {
        "name": model,
        "quantisation": _text(own, "quantization"),
        "context_trained": _count(own, "max_context_length"),
        "architecture": _text(own, "arch"),
    }
    context = _count(own, "loaded_context_length")
    return facts("LM Studio", None, told, context=context)


def of_gateway(status: dict[str, Any]) -> dict[str, Any]:
    """An llcuda-server, by its status; and the servers behind it, as far as it knows them."""
    listed = status.get("upstreams")
    behind = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    upstreams = [_behind(each) for each in behind]
    first: dict[str, Any] = upstreams[0]["model"] if upstreams else {}
    level = _text(_map(status, "store"), "level")
    slots = [each["slots"] for each in upstreams]
    contexts = [each["context"] for each in upstreams if each["context"]]
    version = _text(_map(status, "server"), "version") or _text(status, "server")
    why = {
        name: reason
        for name, reason in (upstreams[0]["unknown"] if upstreams else {}).items()
        if name.startswith("model.")
    }
    return facts(
        "llcuda-server",
        version,
        first,
        why=why,
        context=min(contexts, default=None),
        slots=None if not slots or None in slots else sum(slots),
        flags={"durability": level} if level else None,
        upstreams=upstreams or None,
    )


def unhashed(status: dict[str, Any]) -> int:
    """Bytes of models' files that an llcuda-server has not hashed yet, by its status.

    A file on its machine of which it says nothing yet counts as one byte.
    """
    listed = status.get("upstreams")
    size = 0
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and isinstance(each.get("fingerprint"), dict):
            known = each["fingerprint"]
            here = _text(each, "url").startswith(_HERE)
            if not known.get("hash"):
                size += _count(known, "size") or int(here)
    return size


def _behind(status: dict[str, Any]) -> dict[str, Any]:
    known = _map(status, "fingerprint")
    return facts(
        "llama-server",
        _text(known, "build"),
        {
            "name": _text(status, "model"),
            "sha256": _text(known, "hash"),
            "size": _count(known, "size"),
            "quantisation": _text(known, "quantisation"),
        },
        why={"model.sha256": "llcuda-server cannot read its file, or has not read it yet"},
        context=_count(status, "context"),
        slots=_count(status, "slots"),
    )


def _map(of: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    return found if isinstance(found, dict) else {}


def _text(of: Mapping[str, Any], name: str, most: int = 1024) -> str:
    found = of.get(name)
    return found[:most] if isinstance(found, str) else ""


def _hash(template: str) -> str | None:
    return hashlib.sha256(template.encode("utf-8", "replace")).hexdigest() if template else None


def _count(of: Mapping[str, Any], name: str) -> int | None:
    found = of.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _name(path: str) -> str:
    return PurePath(path).name
