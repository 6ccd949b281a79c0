"""The paths of llama-server's own API."""

from __future__ import annotations

from llcuda_net.server.http.llama.loading import list_loaded, load, unload
from llcuda_net.server.http.llama.rerank import rerank
from llcuda_net.server.http.llama.template import apply_template
from llcuda_net.server.http.llama.tokens import detokenize, tokenize
from llcuda_net.server.http.route import Route

#: The names that llama-server has for one of them.
RERANK_PATHS = ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking")

ROUTES = [
    Route("GET", "/models", list_loaded),
    Route("POST", "/models/load", load),
    Route("POST", "/models/unload", unload),
    Route("POST", "/tokenize", tokenize),
    Route("POST", "/detokenize", detokenize),
    Route("POST", "/apply-template", apply_template),
    *(Route("POST", path, rerank) for path in RERANK_PATHS),
]
