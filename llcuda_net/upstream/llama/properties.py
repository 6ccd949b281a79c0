"""What a llama-server says of itself in /props."""

from __future__ import annotations

import re
from pathlib import PurePath

import msgspec

from llcuda_net.errors import UpstreamNotReady
from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.llama.failures import nonsense
from llcuda_net.upstream.llama.transport.origin import decoder

#: Slots that one upstream may have: each takes memory here, whatever it says.
MOST_SLOTS = 4096
#: What templates of models that reason have in them: switches, fields of messages, marks. Those of
#: other models may say "thinking" in words.
_THINKS = re.compile(
    rb"enable_thinking|reasoning_(?:content|effort)|\bif (?:not )?thinking\b|</?think>"
    rb"|\[/?THINK\]|<\|channel\|>|<\|START_THINKING\|>|<seed:think>"
)
#: What a template may have in it that makes something else of the same messages another day.
_CHANGES = re.compile(rb"date|time|now|random", re.IGNORECASE)


# What is needed of the answer: the rest is passed over, and takes no memory.


class _Settings(msgspec.Struct):
    n_ctx: int


class _Caps(msgspec.Struct):
    supports_preserve_reasoning: bool = False
    supports_reasoning_effort: bool = False
    supports_tools: bool = True


class _Modalities(msgspec.Struct):
    vision: bool = False
    audio: bool = False


class _Props(msgspec.Struct, kw_only=True):
    total_slots: int | None = None
    default_generation_settings: _Settings
    role: str = ""
    model_alias: str | None = None
    model_path: str | None = None
    model_ftype: str | int | None = None
    build_info: str | None = None
    chat_template: msgspec.Raw = msgspec.Raw(b"null")
    chat_template_caps: _Caps | None = None
    modalities: _Modalities | None = None


class IsRouter(UpstreamNotReady):
    """It is a llama-server in router mode: its models have properties, and it has none."""


_props = decoder(_Props, "/props gave no properties")


def properties_of(data: bytes) -> Properties:
    """The properties in an answer.

    Raises:
        IsRouter: they are a router's.
        RequestError: there are none.
    """
    found = _props(data)
    if found.total_slots is None:
        if found.role == "router":
            raise IsRouter("it is a router: it has properties of each model", retry=True)
        raise nonsense("/props gave no properties (no total_slots)")
    path = found.model_path or ""
    modalities = found.modalities or _Modalities()
    return Properties(
        model=(found.model_alias or PurePath(path).name or "unknown")[:256],
        slots=min(max(1, found.total_slots), MOST_SLOTS),
        context=max(1, found.default_generation_settings.n_ctx),
        has_template=bytes(found.chat_template) not in (b"null", b'""', b"false"),
        build=found.build_info or "",
        path=path,
        quantisation=str(found.model_ftype or ""),
        thinks=_thinks(found),
        images=modalities.vision,
        audio=modalities.audio,
        tools=(found.chat_template_caps or _Caps()).supports_tools,
        steady=_CHANGES.search(bytes(found.chat_template)) is None,
    )


def _thinks(props: _Props) -> bool:
    caps = props.chat_template_caps or _Caps()
    return (
        caps.supports_preserve_reasoning
        or caps.supports_reasoning_effort
        or _THINKS.search(bytes(props.chat_template)) is not None
    )
