"""The paths of OpenAI's API; those of models are in anthropic/routes.py, for both."""

from __future__ import annotations

from llcuda_net.server.http.openai.chat import chat_completions
from llcuda_net.server.http.openai.embeddings import embeddings
from llcuda_net.server.http.route import Route

ROUTES = [
    Route("POST", "/v1/chat/completions", chat_completions),
    Route("POST", "/v1/embeddings", embeddings),
]
