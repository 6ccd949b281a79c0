"""Requests whose answers are not text: vectors, search results, lists and the status report."""

from __future__ import annotations

import sys
from array import array
from functools import partial
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.client.reconnecting import ReconnectingConnection
from llcuda_net.client.requests import Request
from llcuda_net.client.results import Entry, Hit
from llcuda_net.errors import ConnectError


async def embed(
    connection: ReconnectingConnection, texts: list[str], model: str | None
) -> list[list[float]]:
    """One vector for each text, in their order; see `Client.embed`."""
    if not texts:
        await trio.lowlevel.checkpoint()
        return []
    needs = {} if model is None else {"pool": "knows no models"}
    request = Request(partial(wire.Embed, input=texts, model=model), needs)
    vectors: list[list[float]] = []
    channel = await connection.open(request)
    try:
        while isinstance(frame := await channel.receive(), wire.Vectors):
            # From `first` on: after a lost connection they are sent again.
            vectors[frame.first :] = [_floats(vector) for vector in frame.vectors]
    finally:
        channel.close()
    if len(vectors) != len(texts):
        raise ConnectError(f"{connection.name} sent {len(vectors)} vectors for {len(texts)} texts")
    return vectors


async def search(connection: ReconnectingConnection, text: str, k: int) -> list[Hit]:
    """The stored results nearest in meaning to a text; see `Client.search`."""
    request = Request(partial(wire.Search, text=text, k=k), {"search": "has no search"})
    results: list[Hit] = []
    channel = await connection.open(request)
    try:
        while isinstance(frame := await channel.receive(), wire.Hits):
            results[frame.first :] = map(Hit.of, frame.hits)
    finally:
        channel.close()
    return results


async def list_generations(
    connection: ReconnectingConnection, limit: int, state: str | None, before: str | None
) -> list[Entry]:
    """The newest generations, newest first; see `Client.list`."""
    make = partial(wire.ListGenerations, limit=limit, state=state, before=before)
    entries: list[Entry] = []
    channel = await connection.open(Request(make, {"list": "has no list of generations"}))
    try:
        while isinstance(frame := await channel.receive(), wire.Listing):
            entries[frame.first :] = map(Entry.of, frame.entries)
    finally:
        channel.close()
    return entries


async def report(connection: ReconnectingConnection, request: Request) -> dict[str, Any]:
    """The status report; see `Client.status`."""
    channel = await connection.open(request)
    try:
        frame = await channel.receive()
    finally:
        channel.close()
    assert isinstance(frame, wire.Report)  # the protocol allows nothing else there
    return frame.report


def _floats(vector: bytes) -> list[float]:
    """A vector of the wire, float32 little-endian."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
