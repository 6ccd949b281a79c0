"""Models that the server runs itself, as the operator describes them: files, names and tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from llcuda_net.config.sizes import SAYS, parse_size
from llcuda_net.config.upstreams import ROLES
from llcuda_net.errors import ConfigError

#: Of the KV cache: llama.cpp's names.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
ROPE_SCALINGS = ("none", "linear", "yarn")

_COUNT = "a whole number from 1 on"
_PATH = "the name of a file"
_ABOVE = "a number above 0"
#: What the value of each key of a table must be.
_SAYS = {
    "name": "1 to 128 characters without spaces and slashes at its ends",
    "file": _PATH,
    "aliases": "a list of names",
    "engine": '"auto", "builtin" or the path of a llama-server',
    "ctx": _COUNT,
    "slots": _COUNT,
    "threads": _COUNT,
    "gpu_layers": "a whole number from 0 on",
    "roles": f"a list of {', '.join(ROLES[:-1])} and {ROLES[-1]}",
    "pinned": "true or false",
    "preload": "true or false",
    "idle_seconds": _ABOVE,
    "memory": SAYS,
    "gpu_memory": SAYS,
    "mmproj": _PATH,
    "lora": 'a list of files, each with ":SCALE" behind it where that is not 1',
    "draft": _PATH,
    "draft_gpu_layers": "a whole number from 0 on",
    "chat_template": _PATH,
    "cache_type_k": f"one of {', '.join(CACHE_TYPES)}",
    "cache_type_v": f"one of {', '.join(CACHE_TYPES)}",
    "flash_attn": '"on", "off" or "auto"',
    "rope_scaling": f"one of {', '.join(ROPE_SCALINGS)}",
    "rope_scale": _ABOVE,
    "rope_freq_base": _ABOVE,
    "rope_freq_scale": _ABOVE,
    "yarn_orig_ctx": _COUNT,
    "options": "a list of strings, options of llama-server",
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that the server runs itself.

    Attributes:
        name: by which requests ask for it.
        file: its GGUF file, the first one if it was split; or what stands for one: a name in the
            models folder, or a short name that can be pulled. None: the model of that name in the
            models folder.
        aliases: other names of it.
        engine: what runs it, as the setting of that name; None: what that says.
        ctx: tokens of context for each slot.
        slots: requests that run at once.
        threads: CPU threads.
        gpu_layers: layers on the GPU; each of these None: as the setting of that name.
        roles: what it is used for, as far as it can.
        pinned: it is loaded at the start, and never unloaded.
        preload: it is loaded at the start; so is what `--model` names.
        idle_seconds: unused for so long, it is unloaded; None: as the setting of that name.
        memory, gpu_memory: bytes that it takes when it is loaded; None: estimated, then measured.
        mmproj: file with which it takes images or sound.
        lora: adapters, each a file and its scale.
        draft: file of a smaller model that drafts tokens for it (speculative decoding).
        chat_template: file with a chat template in place of its own (Jinja).
        cache_type_k, cache_type_v: types of the KV cache; None: f16.
        flash_attn: flash attention: on, off or auto.
        draft_gpu_layers: layers of the draft on the GPU; None: all that fit.
        rope_scaling, rope_scale, rope_freq_base, rope_freq_scale, yarn_orig_ctx: how the context is
            extended.
        options: further options of llama-server, for an engine that is one.
    """

    name: str
    file: str | None = None
    aliases: tuple[str, ...] = ()
    engine: str | None = None
    ctx: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    roles: frozenset[str] = frozenset(ROLES)
    pinned: bool = False
    preload: bool = False
    idle_seconds: float | None = None
    memory: int | None = None
    gpu_memory: int | None = None
    mmproj: str | None = None
    lora: tuple[tuple[str, float], ...] = ()
    draft: str | None = None
    draft_gpu_layers: int | None = None
    chat_template: str | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attn: str | None = None
    rope_scaling: str | None = None
    rope_scale: float | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_orig_ctx: int | None = None
    options: tuple[str, ...] = ()


def name_of(file: str) -> str:
    """The name of a model that was given none: that of its file, without folder and `.gguf`."""
    return file.rstrip("/").rpartition("/")[2].removesuffix(".gguf").replace(" ", "-")[:128] or file


def parse(value: Any, where: str) -> tuple[ModelSpec, ...]:
    """The models of a setting: a file or name, or a list of these and of tables.

    Args:
        where: names the setting in errors.

    Raises:
        ConfigError: they are wrong.
    """
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a file, a name, or tables, not {value!r}")
    several = len(value) > 1
    found = tuple(
        _one(entry, f"{where}, number {n}" if several else where)
        for n, entry in enumerate(value, 1)
    )
    check_names(found, where)
    return found


def check_names(specs: tuple[ModelSpec, ...], where: str) -> None:
    """Refuse two models of one name.

    Raises:
        ConfigError: there are such.
    """
    for spec in specs:
        own = (spec.name, *spec.aliases)
        for name in own:
            if own.count(name) > 1:
                raise ConfigError(f"{where}: the model {spec.name} is called {name} twice")
    names = [name for spec in specs for name in (spec.name, *spec.aliases)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two models are called {name}; give them other names")


def with_defaults(spec: ModelSpec, **defaults: Any) -> ModelSpec:
    """The spec with a value for each key that is None there."""
    missing = {key: value for key, value in defaults.items() if getattr(spec, key) is None}
    return replace(spec, **missing)


def _one(entry: Any, where: str) -> ModelSpec:
    if isinstance(entry, str):
        if not entry.strip():
            raise ConfigError(f"{where} must be a file or a name, not {entry!r}")
        return ModelSpec(name_of(entry), entry, preload=True)
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must be a file, a name or a table, not {entry!r}")
    values: dict[str, Any] = {}
    for written, value in entry.items():
        if (key := written.replace("-", "_")) in values:
            raise ConfigError(f"{where}: {key} is given twice, with - and with _")
        values[key] = value
    for key in values:
        if key not in _SAYS:
            raise ConfigError(f"{where}: there is no key {key!r}; keys are {', '.join(_SAYS)}")
    values = {key: _value(key, value, where) for key, value in values.items()}
    if "name" not in values and "file" not in values:
        raise ConfigError(f"{where}: name or file is missing")
    values.setdefault("name", name_of(values.get("file", "")))
    return ModelSpec(**values)


def _value(key: str, value: Any, where: str) -> Any:
    import msgspec  # here, since --help does not need it

    try:
        if key in ("memory", "gpu_memory"):
            return parse_size(value) if isinstance(value, str) else msgspec.convert(value, _size())
        found = msgspec.convert(value, _types()[key])
        return tuple(_lora(one) for one in found) if key == "lora" else found
    except (msgspec.ValidationError, ValueError):
        raise ConfigError(f"{where}: {key} must be {_SAYS[key]}, not {value!r}") from None


def _lora(text: str) -> tuple[str, float]:
    """Raises ValueError."""
    file, colon, scale = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        return file, float(scale)
    except ValueError:
        return text, 1.0  # a colon of the file's name


def _size() -> Any:
    from msgspec import Meta

    return Annotated[int, Meta(ge=0)]


@functools.cache
def _types() -> dict[str, Any]:
    """The types of a table's values, by key."""
    from msgspec import Meta

    text = Annotated[str, Meta(min_length=1)]
    name = Annotated[str, Meta(pattern=r"\A(?!/)[^\s\x00-\x1f]{1,128}(?<!/)\Z")]
    count = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
    above = Annotated[float, Meta(gt=0)]
    return {
        "name": name,
        "file": text,
        "aliases": tuple[name, ...],
        "engine": text,
        "ctx": count,
        "slots": count,
        "threads": count,
        "gpu_layers": Annotated[int, Meta(ge=0, le=(1 << 31) - 1)],
        "roles": Annotated[
            frozenset[Literal["completions", "embeddings", "rerank"]], Meta(min_length=1)
        ],
        "pinned": bool,
        "preload": bool,
        "idle_seconds": above,
        "mmproj": text,
        "lora": tuple[text, ...],
        "draft": text,
        "draft_gpu_layers": Annotated[int, Meta(ge=0, le=(1 << 31) - 1)],
        "chat_template": text,
        "cache_type_k": Literal[CACHE_TYPES],
        "cache_type_v": Literal[CACHE_TYPES],
        "flash_attn": Literal["on", "off", "auto"],
        "rope_scaling": Literal[ROPE_SCALINGS],
        "rope_scale": above,
        "rope_freq_base": above,
        "rope_freq_scale": above,
        "yarn_orig_ctx": count,
        "options": tuple[str, ...],
    }
