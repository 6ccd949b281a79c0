"""Which software answers at a URL, by what each is known to say; and what it tells of itself.

| software     | known by                                  | version          | context        |
|--------------|-------------------------------------------|------------------|----------------|
| llcuda       | owned_by "llcuda"                         | /v1/status       | list of models |
| llama-server | default_generation_settings in its /props | its build_info   | its n_ctx      |
| vLLM         | owned_by "vllm"                           | /version         | max_model_len  |
| SGLang       | owned_by "sglang"                         | /get_server_info | max_model_len  |
| Ollama       | /api/version, and models in /api/tags     | /api/version     | /api/ps        |
| LM Studio    | compatibility_type in /api/v0/models      | not told         | /api/v0/models |
| LiteLLM      | x-litellm-version, or /health/readiness   | the same         | not told       |
| TGI          | model_id in /info                         | /info            | /info          |

What is none of these and describes itself at /openapi.json is called by the title that it gives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

#: Asks for a path below the server's root, with a body to POST or None to GET: the JSON object of
#: the answer; empty where there is none.
Ask = Callable[[str, Any], Awaitable[dict[str, Any]]]

LLAMA, LLCUDA = "llamacpp", "llcuda"
#: Titles that say nothing: the default one of FastAPI.
_NO_TITLES = frozenset({"", "FastAPI"})


class Card(msgspec.Struct):
    """An entry of the list of models."""

    id: str
    owned_by: str | None = None
    max_model_len: Any = None
    context_length: Any = None
    slots: Any = None


@dataclass(frozen=True, slots=True)
class Software:
    """What is known of a server.

    Attributes:
        title: of the software.
        version: empty where it does not say.
        slots: requests that it computes at once; None where it does not say.
        context: tokens of a prompt and its answer; None where it does not say.
        text_field: of the body of its /tokenize; None: it has none, or that is not known.
        known: the title is one of a software.
    """

    title: str
    version: str = ""
    slots: int | None = None
    context: int | None = None
    text_field: str | None = None
    known: bool = True

    @property
    def name(self) -> str:
        """Both, for people."""
        return f"{self.title} {self.version}".strip()

    def complete(self, facts: dict[str, Any]) -> None:
        """Add what facts of the same server (see `targets.facts`) do not know."""
        own = {
            "software": self.title if self.known else None,
            "version": self.version or None,
            "slots": self.slots,
            "context": self.context,
        }
        for name, value in own.items():
            if facts[name] is None and value is not None:
                facts[name] = value
                facts["unknown"].pop(name, None)


async def identify(card: Card, headers: Mapping[str, str], ask: Ask) -> Software:
    """Which software it is.

    Args:
        card: of the model that is asked.
        headers: of an answer of its API, names in lower case.
    """
    if version := headers.get("x-litellm-version"):
        return Software("LiteLLM", _short(version))
    own = _BY_OWNER.get(card.owned_by or "")
    for look in (
        (own,) if own is not None else (_ollama, _lm_studio, _litellm, _llama, _tgi, _titled)
    ):
        found = await look(card, ask)
        if found is not None:
            return found
    owner = f" ({_short(card.owned_by)})" if card.owned_by else ""
    return Software(f"OpenAI-compatible server{owner}", known=False)


async def _llcuda(card: Card, ask: Ask) -> Software | None:
    server = (await ask("/v1/status", None)).get("server")
    version = server.get("version") if isinstance(server, dict) else None
    slots, context = _whole(card.slots), _whole(card.context_length)
    return Software("llcuda-server", _short(version), slots, context, "content")


async def _llama(card: Card, ask: Ask) -> Software | None:
    props = await ask("/props", None)
    settings = props.get("default_generation_settings")
    if not isinstance(settings, dict):
        return Software("llama-server", text_field="content") if card.owned_by == LLAMA else None
    return Software(
        "llama-server",
        _short(props.get("build_info")),
        _whole(props.get("total_slots")),
        _whole(settings.get("n_ctx")),
        "content",
    )


async def _vllm(card: Card, ask: Ask) -> Software | None:
    version = (await ask("/version", None)).get("version")
    return Software("vLLM", _short(version), None, _whole(card.max_model_len), "prompt")


async def _sglang(card: Card, ask: Ask) -> Software | None:
    info = await ask("/get_server_info", None)
    context = _whole(card.max_model_len) or _whole(info.get("context_length"))
    slots = _whole(info.get("max_running_requests"))
    return Software("SGLang", _short(info.get("version")), slots, context, "prompt")


async def _ollama(card: Card, ask: Ask) -> Software | None:
    version = (await ask("/api/version", None)).get("version")
    if not isinstance(version, str) or "models" not in await ask("/api/tags", None):
        return None
    # The context that a model was loaded with; what it was trained for says nothing of that.
    running = _entry((await ask("/api/ps", None)).get("models"), "name", card.id)
    return Software("Ollama", _short(version), None, _whole(running.get("context_length")))


async def _lm_studio(card: Card, ask: Ask) -> Software | None:
    entry = _entry((await ask("/api/v0/models", None)).get("data"), "id", card.id)
    if "compatibility_type" not in entry:
        return None
    return Software("LM Studio", context=_whole(entry.get("loaded_context_length")))


async def _litellm(card: Card, ask: Ask) -> Software | None:
    version = (await ask("/health/readiness", None)).get("litellm_version")
    return Software("LiteLLM", _short(version)) if version else None


async def _tgi(card: Card, ask: Ask) -> Software | None:
    info = await ask("/info", None)
    if not {"model_id", "version"} <= info.keys():
        return None
    return Software("TGI", _short(info["version"]), None, _whole(info.get("max_total_tokens")))


async def _titled(card: Card, ask: Ask) -> Software | None:
    info = (await ask("/openapi.json", None)).get("info")
    title = info.get("title") if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(title, str) or title.strip() in _NO_TITLES:
        return None
    return Software(_short(title), _short(info.get("version")))


_BY_OWNER: dict[str, Callable[[Card, Ask], Awaitable[Software | None]]] = {
    LLCUDA: _llcuda,
    LLAMA: _llama,
    "vllm": _vllm,
    "sglang": _sglang,
}


def _entry(entries: Any, key: str, name: str) -> dict[str, Any]:
    """The one of this name, which may be without Ollama's usual tag; empty where there is none."""
    names = (name, f"{name}:latest")
    found = entries if isinstance(entries, list) else []
    return next((e for e in found if isinstance(e, dict) and e.get(key) in names), {})


def _short(text: Any) -> str:
    """One line of it; empty of what is no text."""
    return " ".join(text.split())[:60] if isinstance(text, str) else ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
