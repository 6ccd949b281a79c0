"""The replies of every endpoint but /completion."""

from __future__ import annotations

from typing import Any

from . import pages
from .answer import Language, RequestError
from .slots import Slot
from .tokens import detokenise, piece, tokenise


def page(what: str, request: dict[str, Any], slots: list[Slot], language: Language) -> bytes:
    """The JSON of `what` ("GET /props"); `slots` are those of the server.

    Raises:
        RequestError: there is no such page, or the request lacks something.
    """
    try:
        value = _value(what, request, slots, language)
    except (KeyError, TypeError, AttributeError) as error:
        raise RequestError(400, f"wrong or missing field: {error}") from None
    return pages.dumps(value)


def _value(what: str, request: dict[str, Any], slots: list[Slot], language: Language) -> Any:
    match what:
        case "GET /health" | "GET /v1/health":
            return {"status": "ok"}
        case "GET /props":
            return pages.props(len(slots), language.context, language.model)
        case "GET /v1/models":
            row = {"id": language.model, "object": "model", "created": 0, "owned_by": "synthetic"}
            return {"object": "list", "data": [row]}
        case "GET /slots":
            return [slot.row(language.context) for slot in slots]
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
