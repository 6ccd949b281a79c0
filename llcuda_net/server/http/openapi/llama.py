"""What llama-server's own routes take and give."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llcuda_net.server.http.llama.loading import LoadBody
from llcuda_net.server.http.llama.rerank import Document, RerankBody
from llcuda_net.server.http.llama.routes import RERANK_PATHS
from llcuda_net.server.http.llama.template import TemplateBody
from llcuda_net.server.http.llama.tokens import DetokenizeBody, Id, TokenizeBody
from llcuda_net.server.http.openapi.answers import ModelList, Success, Usage
from llcuda_net.server.http.openapi.operations import IGNORED, PRIORITY, RUNS, Operation

_Byte = Annotated[int, Meta(ge=0, le=255)]


class Token(msgspec.Struct):
    """A token with its text; with the bytes of it, where they are no text alone."""

    id: Id
    piece: str | list[_Byte]


class TokenList(msgspec.Struct):
    """The tokens of a text."""

    tokens: list[Id | Token]


class Content(msgspec.Struct):
    """The text of tokens."""

    content: str


class Prompt(msgspec.Struct):
    """What a chat template makes of messages."""

    prompt: str


class Ranked(msgspec.Struct):
    """How well one document answers the query; the higher, the better."""

    index: Annotated[int, Meta(ge=0)]
    relevance_score: float
    document: Document | None = None


class RankedText(msgspec.Struct):
    """How well one text answers the query, in the shape of Text Embeddings Inference."""

    index: Annotated[int, Meta(ge=0)]
    score: float
    text: str | None = None


class Ranking(msgspec.Struct):
    """Documents by rank, the best first."""

    model: str
    object: str
    usage: Usage
    results: list[Ranked]


_RERANK = Operation(
    "llama.cpp",
    Ranking,
    RerankBody,
    example={"query": "What is a panda?", "documents": ["A bear.", "A fish."]},
    errors=RUNS,
    parameters=(PRIORITY,),
    headers=IGNORED,
    list_of=RankedText,
)

_LOAD = Operation(
    "llama.cpp",
    Success,
    LoadBody,
    example={"model": "smollm2"},
    errors=(404,),
    headers=IGNORED,
)

#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/models"): Operation("llama.cpp", ModelList, headers=IGNORED),
    ("POST", "/models/load"): _LOAD,
    ("POST", "/models/unload"): _LOAD,
    ("POST", "/tokenize"): Operation(
        "llama.cpp",
        TokenList,
        TokenizeBody,
        example={"content": "Hello", "with_pieces": True},
        errors=RUNS,
        headers=IGNORED,
    ),
    ("POST", "/detokenize"): Operation(
        "llama.cpp",
        Content,
        DetokenizeBody,
        example={"tokens": [1, 2, 3]},
        errors=RUNS,
        headers=IGNORED,
    ),
    ("POST", "/apply-template"): Operation(
        "llama.cpp",
        Prompt,
        TemplateBody,
        example={"messages": [{"role": "user", "content": "Hello"}]},
        errors=RUNS,
        headers=IGNORED,
    ),
    **{("POST", path): _RERANK for path in RERANK_PATHS},
}
