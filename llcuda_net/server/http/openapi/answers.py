"""What answers look like, as structs: their JSON schemas are made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openai.messages import ToolCall

Count = Annotated[int, Meta(ge=0)]
StateName = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]


class ErrorMembers(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(msgspec.Struct):
    """The body of every answer that is an error."""

    error: ErrorMembers


class Usage(msgspec.Struct):
    """Tokens that were read and made."""

    prompt_tokens: Count
    total_tokens: Count
    completion_tokens: Count = 0


class DetailedUsage(msgspec.Struct):
    """Tokens that were read and made, and of how many of each more is known."""

    input_tokens: Count
    input_tokens_details: dict[str, Count]
    output_tokens: Count
    output_tokens_details: dict[str, Count]
    total_tokens: Count


class AnswerMessage(msgspec.Struct):
    """The answer of one choice."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = []


class Choice(msgspec.Struct):
    """One choice of an answer."""

    index: Count
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(msgspec.Struct):
    """The answer to a chat; streamed, it comes as events of `chat.completion.chunk`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: Literal["flex", "default", "priority"]
    system_fingerprint: str | None
    choices: list[Choice]
    usage: Usage
    llcuda: dict[str, Any]


class TextChoice(msgspec.Struct):
    """One choice of the answer to a completion."""

    index: Count
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(msgspec.Struct):
    """The answer to a completion; streamed, it comes as events of the same kind."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoice]
    usage: Usage
    llcuda: dict[str, Any]


class ModelStatus(msgspec.Struct):
    """Whether a model is loaded, as llama-server's router mode says it; why not, and until when."""

    value: Literal["loaded", "loading", "unloaded"]
    args: list[str]
    reason: str = ""
    ready_in: Annotated[float, Meta(ge=0)] | None = None
    failed: bool = False
    error: str = ""


class ModelArchitecture(msgspec.Struct):
    """What a model takes and makes."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelMemory(msgspec.Struct):
    """Bytes that a model takes when it is loaded, of the machine and of its GPUs."""

    host: Count
    gpu: Count


class Model(msgspec.Struct):
    """A model, and what serves it now; what only this server's own models have is else null."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    tags: list[str]
    status: ModelStatus
    architecture: ModelArchitecture
    source: Literal["local", "upstream", "cluster"]
    can_remove: bool
    context_length: int | None
    slots: Count
    free_slots: Count
    state: Literal["loaded", "busy", "leaving", "loading", "unloading", "unloaded", "down"]
    capabilities: list[str]
    modalities: list[str]
    fingerprint: dict[str, Any] | None
    memory: ModelMemory | None
    pinned: bool | None
    wanted: bool | None
    running: Count
    waiting: Count | None
    loads: Count | None
    engine: dict[str, Any] | None


class Success(msgspec.Struct):
    """It has begun."""

    success: Literal[True]


class ModelList(msgspec.Struct):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Embedding(msgspec.Struct):
    """The vector of one text: numbers, or float32 in base64."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingList(msgspec.Struct):
    """The vectors of all texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Page(msgspec.Struct):
    """A page of a list, whose entries are its `data`; the next one is that after `last_id`."""

    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Queued(msgspec.Struct):
    """Where a generation stands in the queue."""

    position: Count
    wait: float | None


class Continuation(msgspec.Struct):
    """Where a generation went on after the loss of what ran it: from this piece of its log on."""

    position: Count
    epoch: Count


class Block(msgspec.Struct, omit_defaults=True):
    """A part of an answer: of text and reasoning as safe HTML, of a tool call its arguments."""

    n: int
    channel: Literal["text", "reasoning", "tool_call"]
    html: str | None = None
    text: str | None = None
    index: int | None = None
    id: str | None = None
    name: str | None = None


class Html(msgspec.Struct):
    """The texts of a generation as safe HTML."""

    text: str
    reasoning: str | None


class GenerationView(msgspec.Struct):
    """A generation: what was asked, what there is of its answer, and how it went.

    Times in seconds since 1970, `timings` in milliseconds by phase.
    """

    id: str
    object: Literal["generation"]
    state: StateName
    created: float
    model: str
    tokens: Count
    text: str
    reasoning: str | None
    tool_calls: list[ToolCall]
    finish_reason: Literal["stop", "length", "tool_calls"] | None
    usage: Usage | None
    error: ErrorMembers | None
    finished: float | None
    request: dict[str, Any]
    previous: str | None
    stop: str | None
    timings: dict[str, float] | None
    fingerprint: dict[str, Any] | None
    seed: int | None
    level: str
    transient: bool
    splices: list[Continuation]
    cached_from: str | None
    idempotency_key: str | None
    conversation: str | None
    queue: Queued | None = None
    n: int | None = None
    index: int | None = None
    html: Html | None = None
    blocks: list[Block] | None = None
    owner: str | None = None
    upstream: str | None = None


class Excerpt(msgspec.Struct):
    """A part of a text, and where in it is what was found: half-open ranges of characters."""

    excerpt: str
    highlights: list[tuple[Count, Count]]


class Matches(msgspec.Struct):
    """Where a search found its words."""

    prompt: Excerpt | None = None
    text: Excerpt | None = None


class SearchReport(msgspec.Struct):
    """What a search looked at, and what it does not know yet."""

    unindexed: Count | None = None
    of_newest: Count | None = None
    searched: Count | None = None
    backlog: Count | None = None


class GenerationEntry(msgspec.Struct):
    """A generation in a list, with the beginnings of its prompt and its text."""

    id: str
    object: Literal["generation"]
    state: StateName
    created: float
    model: str
    tokens: Count
    preview: str
    text: str
    conversation: str | None
    owner: str | None = None
    position: Count | None = None
    score: float | None = None
    matches: Matches | None = None


class GenerationList(Page):
    """A page of generations, newest first; the next one is that after `last_id`."""

    data: list[GenerationEntry]
    search: SearchReport | None = None


class GenerationDeleted(msgspec.Struct):
    """A generation is forgotten."""

    id: str
    object: Literal["generation.deleted"]
    deleted: Literal[True]


class FileView(msgspec.Struct):
    """A file; times in seconds since 1970."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileList(Page):
    """A page of files; the next one is that after `last_id`."""

    data: list[FileView]


class FileDeleted(msgspec.Struct):
    """A file is deleted."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchError(msgspec.Struct):
    """What is wrong with a line of a batch."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(msgspec.Struct):
    """What is wrong with a batch."""

    object: Literal["list"]
    data: list[BatchError]


class BatchCounts(msgspec.Struct):
    """How many lines there are, and are over."""

    total: Count
    completed: Count
    failed: Count


class BatchView(msgspec.Struct):
    """A batch; times in seconds since 1970."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    usage: DetailedUsage
    metadata: dict[str, str] | None


class BatchList(Page):
    """A page of batches, newest first; the next one is that after `last_id`."""

    data: list[BatchView]


class Alive(msgspec.Struct):
    """The process lives."""

    status: Literal["alive"]


class Ready(msgspec.Struct):
    """Whether a request would be served now, and if not, why."""

    status: Literal["ready", "not ready"]
    reason: str | None = None
