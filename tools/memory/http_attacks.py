"""Clients over HTTP that make a server hold, or do, as much as they can."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from itertools import cycle

import trio

from tools.memory.attacks import together

_MIB = 1 << 20
#: Bytes of a large body: a little less than a server takes.
_LARGE = 24 * _MIB - 4096


def _request(body: bytes, *, length: int | None = None) -> bytes:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chat(**more: object) -> bytes:
    messages = [{"role": "user", "content": "What is it?"}]
    return json.dumps({"model": "any", "messages": messages, **more}).encode()


def _bodies() -> dict[str, bytes]:
    """Bodies that are large, or hold much, by what they are."""
    message = b'{"role":"user","content":"a"}'
    tool = b'{"type":"function","function":{"name":"f"}}'
    chat = b'{"messages":[%b],"tools":[%b]}'
    text = b'{"messages":[{"role":"user","content":"%b"}]}'
    return {
        "text": text % (b"x" * (_LARGE - 100)),
        "escapes": text % (b'\\",' * (_LARGE // 3 - 100)),
        "arrays": b'{"messages":' + b"[" * (_LARGE // 2) + b"]" * (_LARGE // 2) + b"}",
        "empty arrays": b'{"messages":[' + b"[]," * (_LARGE // 3) + b"[]]}",
        "messages": chat % (b",".join([message] * 100_000), b""),
        "tools": chat % (message, b",".join([tool] * 100_000)),
        "numbers": b'{"input":[' + b"0.1234567890123456789," * 500_000 + b"1]}",
        "keys": b"{" + b",".join(b'"k%d":{}' % i for i in range(200_000)) + b"}",
    }


async def bodies(port: int, counts: Counter[str]) -> None:
    """200 clients over HTTP: half send 24 MiB slowly, the others bodies that are hard to read."""
    kinds = cycle((await trio.to_thread.run_sync(_bodies)).items())

    async def client(number: int) -> None:
        while True:
            name, body = next(kinds)
            slow = number % 2 == 1
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                counts["slow" if slow else "bodies"] += 1
                status = "cut off"
                with suppress(trio.BrokenResourceError):  # it is not asked for all of them
                    if slow:
                        await _send_slowly(stream)
                    else:
                        await stream.send_all(_request(body))
                    status = (await stream.receive_some(65_536))[9:12].decode() or status
                counts[f"{'slow' if slow else name} {status}"] += 1
            await trio.sleep(1)

    await together(200, client)


async def _send_slowly(stream: trio.SocketStream) -> None:
    await stream.send_all(_request(b"", length=_LARGE))
    for _ in range(_LARGE // 65_536):
        await stream.send_all(b" " * 65_536)
        await trio.sleep(0.05)


async def readers(port: int, counts: Counter[str]) -> None:
    """500 clients over HTTP that never read the answers, of 32 choices with 20 probabilities."""
    choices = _request(_chat(stream=True, n=32, logprobs=True, top_logprobs=20, max_tokens=1000))
    one = _request(_chat(stream=True, logprobs=True, top_logprobs=20, max_tokens=1000))

    async def client(number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            counts["requests"] += 1
            await stream.send_all(one if number % 4 else choices)
            await trio.sleep_forever()

    await together(500, client)


async def heads(port: int, counts: Counter[str]) -> None:
    """1,000 clients over HTTP whose requests have heads without end, again and again."""
    line = b"X-Field: " + b"x" * 1000 + b"\r\n"

    async def client(number: int) -> None:
        while True:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                counts["connections"] += 1
                await stream.send_all(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n")
                for _ in range(30 if number % 2 else 1000):
                    await stream.send_all(line)
                while await stream.receive_some(65_536):
                    counts["answers"] += 1
            await trio.sleep(0.5)

    await together(1000, client)
