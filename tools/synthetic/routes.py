"""The replies of every endpoint but /completion."""

from __future__ import annotations

from typing import Any

from . import pages
from .answer import RequestError
from .tokens import detokenise, piece, tokenise


def page(what: str, request: dict[str, Any], slots: list[bool], context: int) -> bytes:
    """The JSON of `what` ("GET /props"); `slots` says which are busy.

    Raises:
        RequestError: there is no such page, or the request lacks something.
    """
    try:
        value = _value(what, request, slots, context)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(400, f"wrong or missing field: {error}") from None
    return pages.dumps(value)


def _value(what: str, request: dict[str, Any], slots: list[bool], context: int) -> Any:
    match what:
        case "GET /health" | "GET /v1/health":
            return {"status": "ok"}
        case "GET /props":
            return pages.props(len(slots), context)
        case "GET /slots":
            more = {"n_ctx": context, "speculative": False}
            return [{"id": i, **more, "is_processing": busy} for i, busy in enumerate(slots)]
        case "POST /apply-template":
            return {"prompt": pages.apply_template(request["messages"])}
        case "POST /tokenize":
            ids = tokenise(request["content"])
            if not request.get("with_pieces"):
                return {"tokens": ids}
            texts = [piece(i).decode("utf-8", "replace") for i in ids]
            rows = [{"id": i, "piece": text} for i, text in zip(ids, texts, strict=True)]
            return {"tokens": rows}
        case "POST /detokenize":
            return {"content": detokenise(request["tokens"])}
        case "POST /embedding" | "POST /embeddings":
            given = request["content"]
            inputs = given if isinstance(given, list) else [given]
            vectors = [pages.embedding(text) for text in inputs]
            return [{"index": i, "embedding": [vector]} for i, vector in enumerate(vectors)]
    raise RequestError(404, "File Not Found")
