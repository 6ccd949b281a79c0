"""GET /v1/models, which OpenAI's API and Anthropic's both have.

Who sends `anthropic-version` gets the models as Anthropic's API has them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.server.http.anthropic.errors import REQUEST_ID, VERSION
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.openai import models

#: When a model was made, which nobody here knows: the beginning of 1970.
_CREATED = "1970-01-01T00:00:00Z"


async def list_models(exchange: Exchange) -> None:
    """All models, the default one first."""
    if VERSION not in exchange.request.headers:
        await models.list_models(exchange)
        return
    found = [_model(one) for one in models.models_of(exchange.host)]
    document = {
        "data": found,
        "has_more": False,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }
    _respond(exchange, document)


async def get_model(exchange: Exchange) -> None:
    """One model."""
    if VERSION not in exchange.request.headers:
        await models.get_model(exchange)
        return
    _respond(exchange, _model(models.find_model(exchange)))


def _model(known: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "model",
        "id": known["id"],
        "display_name": known["id"],
        "created_at": _CREATED,
        "lifecycle": "active",
        "max_input_tokens": known["context_length"],
        "max_tokens": known["context_length"],
    }


def _respond(exchange: Exchange, document: dict[str, Any]) -> None:
    headers = {REQUEST_ID: exchange.request.id}
    exchange.respond(200, msgspec.json.encode(document), headers=headers)
