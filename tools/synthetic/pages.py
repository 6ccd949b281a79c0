"""llama-server's HTTP replies as bytes: heads, JSON bodies and errors, in its own field order."""

from __future__ import annotations

import json
import zlib
from typing import Any

_COMMON = b"Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
_KEEP = b"Keep-Alive: timeout=5, max=100\r\n"
_CLOSE = b"Connection: close\r\n"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
MODEL = "synthetic.gguf"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: Length of a vector that /embedding gives.
EMBEDDING = 8

_PARAMS: dict[str, Any] = {
    "seed": 4294967295,
    "temperature": 0.800000011920929,
    "top_k": 40,
    "top_p": 0.949999988079071,
    "min_p": 0.05000000074505806,
    "n_predict": -1,
    "ignore_eos": False,
    "stream": False,
    "n_probs": 0,
    "stop": [],
}


def dumps(value: Any) -> bytes:
    """JSON as llama-server writes it: no spaces, UTF-8 as it is."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def stream_head(last: bool) -> bytes:
    """The head of an event stream; `last`: the connection is closed after it."""
    return (
        b"HTTP/1.1 200 OK\r\n" + _COMMON + b"X-Accel-Buffering: no\r\n"
        b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        + (_CLOSE if last else _KEEP)
        + b"\r\n"
    )


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def reply(body: bytes, status: int = 200, last: bool = False, headers: bytes = b"") -> bytes:
    """A whole JSON reply. As in llama-server, an error closes the connection.

    Args:
        headers: more lines of the head, each with its end.
    """
    return b"HTTP/1.1 %d %b\r\n%bContent-Type: application/json; charset=utf-8\r\n" % (
        status,
        _REASONS.get(status, b"Status"),
        _COMMON + headers,
    ) + b"Content-Length: %d\r\n%b\r\n%b" % (
        len(body),
        _CLOSE if last or status >= 400 else _KEEP,
        body,
    )


def error_body(status: int, message: str, **more: Any) -> bytes:
    """The JSON of an error; `more` follows its type."""
    kind = more.pop("type", _ERROR_TYPES.get(status, "server_error"))
    return dumps({"error": {"code": status, "message": message, "type": kind, **more}})


#: Answers that come before the one that counts.
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def other_form(event: bytes) -> bytes:
    """An event of one line of data in another form: lines end with CRLF, comments, more fields."""
    data = event.removeprefix(b"data: ").rstrip(b"\n")
    head, comma, tail = data.partition(b",")  # white space is free behind a comma, a line's end too
    lines = [b": comment", b"id: 1", b"data:" + head + comma, b"unknown", b"retry: 5"]
    return b"\r\n".join([*lines, b"data: " + tail, b"", b""])


def props(slots: int, context: int, model: str) -> dict[str, Any]:
    """GET /props."""
    return {
        "default_generation_settings": {"params": _PARAMS, "n_ctx": context},
        "total_slots": slots,
        "model_alias": model,
        "model_path": model,
        "modalities": {"vision": False, "video": False, "audio": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": False,
        "chat_template": CHAT_TEMPLATE,
        "bos_token": "<|end|>",
        "eos_token": "<|end|>",
        "build_info": "b0-synthetic",
        "is_sleeping": False,
    }


def apply_template(messages: list[dict[str, Any]]) -> str:
    """CHAT_TEMPLATE, applied."""
    turns = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages)
    return turns + "<|assistant|>"


def embedding(text: str) -> list[float]:
    """A made-up vector of length 1, the same for the same text."""
    raw = [zlib.crc32(text.encode(), i) / 2**31 - 1.0 for i in range(1, EMBEDDING + 1)]
    norm = sum(x * x for x in raw) ** 0.5
    return [x / norm for x in raw]


def probabilities(token: int, text: str, candidates: int) -> list[dict[str, Any]]:
    """The `completion_probabilities` of one token: itself the likeliest, then other characters."""

    def entry(ident: int, piece: str, logprob: float) -> dict[str, Any]:
        return {"id": ident, "token": piece, "bytes": list(piece.encode()), "logprob": logprob}

    top = [entry(token, text, -0.5)]
    top += [entry(97 + i, chr(97 + i), -1.5 - i) for i in range(candidates - 1)]
    return [{**entry(token, text, -0.5), "top_logprobs": top}]


def final(
    request: dict[str, Any],
    *,
    model: str,
    content: str,
    tokens: list[int],
    slot: int,
    prompt: str,
    prompt_tokens: int,
    cached: int,
    predicted: int,
    stop_type: str,
    stopping_word: str,
    truncated: bool,
    prompt_ms: float,
    predicted_ms: float,
) -> dict[str, Any]:
    """The last event of a stream, or the body of a reply that is not streamed."""
    known = {key: request[key] for key in _PARAMS if key in request}
    predicted_s = max(predicted_ms, 1e-6) / 1000
    prompt_s = max(prompt_ms, 1e-6) / 1000
    evaluated = prompt_tokens - cached
    return {
        "index": 0,
        "content": content,
        "tokens": tokens,
        "id_slot": slot,
        "stop": True,
        "model": model,
        "tokens_predicted": predicted,
        "tokens_evaluated": prompt_tokens,
        "generation_settings": {**_PARAMS, **known},
        "prompt": prompt,
        "has_new_line": False,
        "truncated": truncated,
        "stop_type": stop_type,
        "stopping_word": stopping_word,
        "tokens_cached": prompt_tokens + predicted,
        "timings": {
            "cache_n": cached,
            "prompt_n": evaluated,
            "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / max(evaluated, 1),
            "prompt_per_second": evaluated / prompt_s,
            "predicted_n": predicted,
            "predicted_ms": predicted_ms,
            "predicted_per_token_ms": predicted_ms / max(predicted, 1),
            "predicted_per_second": predicted / predicted_s,
        },
    }
