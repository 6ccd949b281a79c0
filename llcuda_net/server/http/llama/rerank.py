"""POST /v1/rerank: documents by how well they answer a query, as Jina, Cohere and TEI have it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llcuda_net.config.upstreams import RERANK
from llcuda_net.errors import RequestError, Unsupported, UpstreamUnavailable
from llcuda_net.generation.memory import sizes
from llcuda_net.server.http.errors import of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.openai import strict_json
from llcuda_net.server.http.openai.bodies import convert, wrong
from llcuda_net.server.http.openai.chat import options_of
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.models import meant

#: Most documents of a request.
MAX_DOCUMENTS = 2048
#: Seconds after which to ask again, where it is not known yet what the upstreams can.
_RETRY_AFTER = 1.0
#: Bytes of JSON for a document in the answer, beside its text.
_ENTRY = 96

_Text = Annotated[str, Meta(min_length=1)]


class Document(msgspec.Struct):
    """A document that is an object."""

    text: _Text


class RerankBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/rerank: `documents`, or with `texts` as TEI's API has it."""

    query: _Text
    documents: list[_Text | Document] | None = None
    texts: list[_Text] | None = None
    model: Annotated[str, Meta(max_length=1024)] | None = None
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None


_KNOWN = RerankBody.__struct_fields__


async def rerank(exchange: Exchange) -> None:
    """Documents by how well they answer a query, the best first."""
    request, host = exchange.request, exchange.host
    ignored = Ignored(lenient=host.settings.lenient)
    body = await strict_json.read(
        request.body, lambda data: convert(ignored.keep(data, _KNOWN), RerankBody)
    )
    exchange.drop_body()
    documents = _documents(body)
    priority = options_of(request.headers).get("priority")
    try:
        if host.starting:
            await host.started(request.user, 2 * sizes.of(documents))
        _check_served(host)
        wanted, told = meant(host, body.model, RERANK)
        found = await host.queries.rerank(body.query, documents, request.user, wanted, priority)
    except RequestError as error:
        raise of_request_error(error, "model" if error.code == "unknown_model" else None) from None
    scores = found.scores
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    texts = documents if body.return_documents or body.return_text else None
    size = sum(_ENTRY + (4 * len(documents[i]) if texts else 0) for i in best)
    with host.holding(request.user, size):
        answer: Any
        if body.texts is not None:
            answer = [_as_tei(i, scores[i], texts) for i in best]
        else:
            usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
            results = [_as_jina(i, scores[i], texts) for i in best]
            answer = {"model": told, "object": "list", "usage": usage, "results": results}
        exchange.respond(200, msgspec.json.encode(answer), headers=ignored.headers())


def _documents(body: RerankBody) -> list[str]:
    """The texts of the documents, in their order."""
    name = "documents" if body.texts is None else "texts"
    if body.documents is not None and body.texts is not None:
        raise wrong("texts", "give documents or texts: one of them")
    given = body.documents if body.texts is None else body.texts
    if given is None:
        raise wrong("documents", "documents: it is missing")
    if not 1 <= len(given) <= MAX_DOCUMENTS:
        raise wrong(name, f"{name} must have 1 to {MAX_DOCUMENTS} texts, not {len(given)}")
    return [one if isinstance(one, str) else one.text for one in given]


def _check_served(host: HttpHost) -> None:
    """Return if an upstream ranks documents.

    Raises:
        RequestError: none does, or none that is known yet.
    """
    if host.pool.names(RERANK):
        return
    unknown = [one for one in host.pool.backends if RERANK in one.spec.roles and not one.was_up]
    if host.pool.watched and unknown:
        names = ", ".join(one.name for one in unknown)
        raise UpstreamUnavailable(
            f"no upstream that is up reranks, and these have not answered yet: {names}"[:500],
            retry=True,
            retry_after=_RETRY_AFTER,
        )
    raise Unsupported(
        "no upstream reranks: start a llama-server with --reranking and a model made for it, such "
        "as bge-reranker-v2-m3, and name it with --upstream"
    )


def _as_jina(index: int, score: float, texts: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "relevance_score": score}
    if texts is not None:
        found["document"] = {"text": texts[index]}
    return found


def _as_tei(index: int, score: float, texts: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "score": score}
    if texts is not None:
        found["text"] = texts[index]
    return found
