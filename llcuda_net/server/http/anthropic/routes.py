"""The paths of Anthropic's API, those that it shares with OpenAI's among them."""

from __future__ import annotations

from llcuda_net.server.http.anthropic.errors import anthropic_error, error_by_version
from llcuda_net.server.http.anthropic.handlers import create
from llcuda_net.server.http.anthropic.models import get_model, list_models
from llcuda_net.server.http.route import Route

ROUTES = [
    Route("POST", "/v1/messages", create, errors=anthropic_error),
    Route("GET", "/v1/models", list_models, errors=error_by_version),
    Route("GET", "/v1/models/{id}", get_model, errors=error_by_version),
]
