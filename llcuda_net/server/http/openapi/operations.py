"""What each operation takes and gives, beyond what its route says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llcuda_net.config.users import PRIORITIES
from llcuda_net.server.http.batches.create import BatchBody
from llcuda_net.server.http.completions.body import CompletionBody
from llcuda_net.server.http.delivery.deliver import MOST_KEY
from llcuda_net.server.http.files.routes import DEFAULT_PAGE, LARGEST_PAGE
from llcuda_net.server.http.files.upload import LEAST_LIFE, MOST_LIFE, PURPOSES
from llcuda_net.server.http.generations.export import FORMATS as EXPORT_FORMATS
from llcuda_net.server.http.generations.wanted import DEFAULT_LIMIT, MAX_SEARCH, PARAMETERS
from llcuda_net.server.http.openai.chat import OPTIONS
from llcuda_net.server.http.openai.chat_body import ChatBody
from llcuda_net.server.http.openai.embeddings import EmbeddingsBody
from llcuda_net.server.http.openapi import answers
from llcuda_net.storage.records import Level
from llcuda_protocol.kinds import MAX_LISTED

JSON, EVENTS, METRICS = "application/json", "text/event-stream", "text/plain"
BYTES, MARKDOWN = "application/octet-stream", "text/markdown"
#: Statuses of errors that a request may have on its way to a handler, and of a fault in one.
_ALWAYS = (400, 401, 403, 408, 413, 415, 429, 500, 503)
#: Those of what runs on an upstream.
RUNS = (404, 409, 502, 504)
_SECONDS: dict[str, Any] = {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]+)?$"}


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        tag: groups it.
        answer: the body of the answer; None: text, or no JSON.
        list_of: what the answer is a list of, where it is none of `answer`.
        other, other_error: the answer and an error as another API has them.
        body: of the request.
        form: the schema of a body that is a form.
        example: of such a body.
        optional: the body may be left out.
        contents: other types of the answer, with what they hold.
        errors: statuses of its errors, beside those that all have.
        unready: what 503 is answered with, where it is no error.
        parameters: in the query and in header fields.
        headers: of the answer.
        names: where in the answer the id of a generation is, as a runtime expression.
        error: the body of an answer that is an error.
    """

    tag: str
    answer: type | None
    body: type | None = None
    form: dict[str, Any] | None = None
    example: dict[str, Any] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    unready: type | None = None
    parameters: tuple[dict[str, Any], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    names: str | None = None
    list_of: type | None = None
    error: type = answers.Error
    other: type | None = None
    other_error: type | None = None
    optional: bool = False

    @property
    def statuses(self) -> tuple[int, ...]:
        """Of all its errors."""
        return tuple(sorted({*_ALWAYS, *self.errors} - ({503} if self.unready else set())))


def header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter in a header field."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


def query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter in the query."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


_OPTIONS: dict[str, dict[str, Any]] = {
    "x-llcuda-timeout": _SECONDS,
    "x-llcuda-deadline": _SECONDS,
    "x-llcuda-level": {"type": "string", "enum": list(Level)},
    "x-llcuda-cache": {"type": "string", "enum": ["true", "false", "1", "0"]},
    "x-llcuda-store": {"type": "string", "enum": ["true", "false", "1", "0"]},
    "x-llcuda-priority": {"type": "string", "enum": list(PRIORITIES)},
}
LAST = header(
    "Last-Event-ID",
    "the id of the last event that the client has: the answer goes on behind it",
    {"type": "string"},
)
LEAVING = header(
    "x-llcuda-on-disconnect",
    "what becomes of the answer when the client is gone: continue, cancel, or seconds",
    {"type": "string", "pattern": r"^(continue|cancel|[0-9]+(\.[0-9]+)?)$"},
)
_KEY = header(
    "Idempotency-Key",
    "the same request with the same key is answered with the same answer",
    {"type": "string", "minLength": 1, "maxLength": MOST_KEY, "pattern": "^[!-~]+$"},
)
VERSION = header(
    "anthropic-version",
    "with it, answers and errors are those of Anthropic's API",
    {"type": "string"},
)
#: Of each request that begins generations.
RUN = (
    *(header(name, note, _OPTIONS[name]) for name, note in OPTIONS.items()),
    _KEY,
    LAST,
    LEAVING,
)
_PRIORITY = "x-llcuda-priority"
PRIORITY = header(_PRIORITY, OPTIONS[_PRIORITY], _OPTIONS[_PRIORITY])
NAMED = {"x-llcuda-generation": "the generations of the choices"}
IGNORED = {"x-llcuda-ignored": "fields of the body that were ignored"}
STREAM = {
    EVENTS: "server-sent events (HTML standard); data is a part of the answer or an error, in "
    "JSON, or [DONE]; id is what a reader that comes back sends as Last-Event-ID"
}

_UPLOAD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "contentMediaType": BYTES},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[anchor]": {"type": "string", "const": "created_at"},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": LEAST_LIFE,
            "maximum": MOST_LIFE,
        },
    },
    "required": ["file", "purpose"],
    "additionalProperties": False,
}


def pages(
    default: int, most: int, orders: Sequence[str] = ("desc", "asc")
) -> tuple[dict[str, Any], ...]:
    """The parameters of a list in pages.

    Args:
        orders: that it may have; the first is the default.
    """
    number = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return (
        query("limit", "entries of the page, at most", number),
        query("after", "the page behind this entry", {"type": "string"}),
        query("order", "by time", {"enum": [*orders], "default": orders[0]}),
    )


_MOMENT: dict[str, Any] = {"type": "string", "examples": ["2026-11-01T14:30:00Z", "7d"]}
_WORDS: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_SEARCH}
#: Of each parameter of a list of generations.
_SELECTED: dict[str, dict[str, Any]] = {
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_LISTED - 1,
        "default": DEFAULT_LIMIT,
    },
    "after": {"type": "string"},
    "before": {"type": "string"},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
    "state": {"type": "string", "examples": ["running", "failed,interrupted"]},
    "model": {"type": "string"},
    "since": _MOMENT,
    "until": _MOMENT,
    "q": _WORDS,
    "semantic": _WORDS,
}

#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        "OpenAI",
        answers.ChatCompletion,
        ChatBody,
        example={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16},
        contents=STREAM,
        errors=RUNS,
        parameters=RUN,
        headers={**NAMED, **IGNORED},
        names="$response.body#/llcuda/generation",
    ),
    ("POST", "/v1/completions"): Operation(
        "OpenAI",
        answers.TextCompletion,
        CompletionBody,
        example={"prompt": "Once upon", "max_tokens": 16},
        contents=STREAM,
        errors=RUNS,
        parameters=RUN,
        headers={**NAMED, **IGNORED},
        names="$response.body#/llcuda/generation",
    ),
    ("POST", "/v1/embeddings"): Operation(
        "OpenAI",
        answers.EmbeddingList,
        EmbeddingsBody,
        example={"input": ["Hello"]},
        errors=RUNS,
        parameters=(PRIORITY,),
        headers=IGNORED,
    ),
    ("GET", "/v1/generations"): Operation(
        "generations",
        answers.GenerationList,
        parameters=tuple(query(name, PARAMETERS[name], _SELECTED[name]) for name in PARAMETERS),
        errors=(404,),
    ),
    ("GET", "/v1/generations/{id}"): Operation(
        "generations",
        answers.GenerationView,
        errors=RUNS,
        parameters=(query("render", "the texts as safe HTML, too, in html", {"const": "html"}),),
        headers=NAMED,
    ),
    ("DELETE", "/v1/generations/{id}"): Operation(
        "generations", answers.GenerationDeleted, errors=(404, 409), headers=NAMED
    ),
    ("GET", "/v1/generations/{id}/events"): Operation(
        "generations",
        None,
        contents=STREAM,
        errors=RUNS,
        parameters=(
            LAST,
            query("last_event_id", "the same, where no header can be sent", {"type": "string"}),
            LEAVING,
        ),
        headers=NAMED,
    ),
    ("GET", "/v1/generations/{id}/export"): Operation(
        "generations",
        answers.GenerationView,
        contents={MARKDOWN: "the prompt or messages, and the answer"},
        errors=RUNS,
        parameters=(
            query(
                "format",
                "of the file",
                {"enum": [*EXPORT_FORMATS], "default": "markdown"},
            ),
        ),
        headers={**NAMED, "Content-Disposition": "that it is a file, and its name"},
    ),
    ("POST", "/v1/generations/{id}/cancel"): Operation(
        "generations", answers.GenerationView, errors=RUNS, headers=NAMED
    ),
    ("POST", "/v1/files"): Operation("files", answers.FileView, form=_UPLOAD),
    ("GET", "/v1/files"): Operation(
        "files",
        answers.FileList,
        parameters=(
            *pages(DEFAULT_PAGE, LARGEST_PAGE),
            query("purpose", "only files for this purpose", {"type": "string"}),
        ),
        errors=(404,),
    ),
    ("GET", "/v1/files/{id}"): Operation("files", answers.FileView, errors=(404,)),
    ("DELETE", "/v1/files/{id}"): Operation("files", answers.FileDeleted, errors=(404,)),
    ("GET", "/v1/files/{id}/content"): Operation(
        "files", None, contents={BYTES: "the bytes of the file"}, errors=(404,)
    ),
    ("POST", "/v1/batches"): Operation(
        "batches",
        answers.BatchView,
        BatchBody,
        example={
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
        parameters=(_KEY,),
        errors=(404, 409),
    ),
    ("GET", "/v1/batches"): Operation(
        "batches", answers.BatchList, parameters=pages(20, 100), errors=(404,)
    ),
    ("GET", "/v1/batches/{id}"): Operation("batches", answers.BatchView, errors=(404,)),
    ("POST", "/v1/batches/{id}/cancel"): Operation("batches", answers.BatchView, errors=(404, 409)),
    ("GET", "/healthz"): Operation("operation", answers.Alive),
    ("GET", "/readyz"): Operation("operation", answers.Ready, unready=answers.Ready),
    ("GET", "/metrics"): Operation(
        "operation",
        None,
        contents={
            METRICS: "metrics for Prometheus",
            "application/openmetrics-text": "the same, where the client accepts it",
        },
        errors=(404,),
    ),
    ("GET", "/openapi.json"): Operation("operation", dict),
}
