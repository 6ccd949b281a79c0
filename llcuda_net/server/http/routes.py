"""Every path that is answered."""

from __future__ import annotations

from llcuda_net.server.http import monitor
from llcuda_net.server.http.anthropic import routes as anthropic
from llcuda_net.server.http.batches import routes as batches
from llcuda_net.server.http.completions import routes as completions
from llcuda_net.server.http.conversations import routes as conversations
from llcuda_net.server.http.events import routes as events
from llcuda_net.server.http.files import routes as files
from llcuda_net.server.http.generations import routes as generations
from llcuda_net.server.http.llama import routes as llama
from llcuda_net.server.http.openai import routes as openai
from llcuda_net.server.http.openapi.document import document_route
from llcuda_net.server.http.page import files as page
from llcuda_net.server.http.page import signing
from llcuda_net.server.http.responses import routes as responses
from llcuda_net.server.http.route import Route
from llcuda_net.server.http.status import routes as status

ROUTES: list[Route] = [
    *monitor.ROUTES,
    *status.ROUTES,
    *page.ROUTES,
    *signing.ROUTES,
    *openai.ROUTES,
    *completions.ROUTES,
    *responses.ROUTES,
    *anthropic.ROUTES,
    *llama.ROUTES,
    *conversations.ROUTES,
    *generations.ROUTES,
    *events.ROUTES,
    *files.ROUTES,
    *batches.ROUTES,
]
ROUTES.append(document_route(ROUTES))
