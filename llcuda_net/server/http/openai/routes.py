"""The paths of OpenAI's API."""

from __future__ import annotations

from llcuda_net.server.http.openai.chat import chat_completions
from llcuda_net.server.http.openai.embeddings import embeddings
from llcuda_net.server.http.openai.models import get_model, list_models
from llcuda_net.server.http.route import Route

ROUTES = [
    Route("POST", "/v1/chat/completions", chat_completions),
    Route("POST", "/v1/embeddings", embeddings),
    Route("GET", "/v1/models", list_models),
    Route("GET", "/v1/models/{id}", get_model),
]
