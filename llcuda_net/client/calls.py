"""Requests whose answers are not text: vectors, search results, lists and the status report."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio

import llcuda_protocol as wire
from llcuda_net.client.reconnecting import ReconnectingConnection
from llcuda_net.client.requests import Deletion, Request, generation_id
from llcuda_net.client.results import Entry, Hit
from llcuda_net.errors import ConnectError, UnknownGeneration
from llcuda_protocol.kinds import MAX_HITS, MAX_LISTED


class Calls:
    """The calls of a client that are answered once; `Client` has them, and generations besides."""

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    @property
    def server(self) -> str:
        """HOST:PORT of the server that it is connected to, or was last."""
        return self._connection.name

    @property
    def features(self) -> frozenset[str]:
        """The requests that the server announced: `generate`, `attach`, `embed`…"""
        return self._connection.features

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> list[list[float]]:
        """One vector per text, in their order.

        Args:
            texts: what to embed.
            model: the model that embeds them; None: the server's default.

        Returns:
            `len(texts)` lists, each of the model's dimension, of float32 values.

        Raises:
            TypeError: a string was given in place of a list of strings.
            ConnectError: the connection is lost.
            RequestError: the server refused: `Unsupported` where it has no embedding model, or
                cannot choose among models, `UnknownModel` where it has none of this name.
        """
        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts: embed([text])")
        texts = [*texts]
        if not texts:
            await trio.lowlevel.checkpoint()
            return []
        needs = {} if model is None else {"pool": "knows no models"}
        request = Request(partial(wire.Embed, input=texts, model=model), needs)
        vectors: list[list[float]] = []
        channel = await self._connection.open(request)
        try:
            while isinstance(frame := await channel.receive(), wire.Vectors):
                # From `first` on: after a lost connection they are sent again.
                vectors[frame.first :] = [_floats(vector) for vector in frame.vectors]
        finally:
            channel.close()
        if len(vectors) != len(texts):
            name = self._connection.name
            raise ConnectError(f"{name} sent {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    async def search(self, text: str, k: int = 10) -> list[Hit]:
        """The user's stored results nearest in meaning to a text, nearest first; at most `k`.

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server refused: `Unsupported` where it analyses no results, or has no
                search.
            ValueError: `k` is not from 1 to 1000.
        """
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k must be from 1 to {MAX_HITS}, not {k}")
        request = Request(partial(wire.Search, text=text, k=k), {"search": "has no search"})
        results: list[Hit] = []
        channel = await self._connection.open(request)
        try:
            while isinstance(frame := await channel.receive(), wire.Hits):
                results[frame.first :] = map(Hit.of, frame.hits)
        finally:
            channel.close()
        return results

    async def models(self) -> list[dict[str, Any]]:
        """The server's models, one map per model.

        Each has `name`, `upstreams`, `slots`, `free`, `context` and `default`, as far as known.

        Raises:
            ConnectError: the connection is lost.
            RequestError: `Unsupported`: the server is too old to list models.
        """
        request = Request(wire.Status, {"pool": "knows no models"})
        return [*(await self._report(request)).get("models", [])]

    async def status(self) -> dict[str, Any]:
        """The status report: `server`, `connections`, `requests`, `tokens`, `upstreams`, `models`…

        Raises:
            ConnectError: the connection is lost.
            RequestError: the server is shutting down.
        """
        return await self._report(Request(wire.Status))

    async def ping(self) -> float:
        """The time that the server takes to answer, in seconds.

        Raises:
            ConnectError: the connection is lost.
        """
        return await self._connection.ping()

    async def delete(self, generation: str) -> None:
        """Delete what is stored of a generation of the user's own that is over, for good.

        Args:
            generation: its id.

        Raises:
            ConnectError: the connection is lost, and could not be made again in time.
            RequestError: `UnknownGeneration`: there is none of this id (any more);
                `InvalidRequest`: it still runs; `Unsupported`: the server is too old.
        """
        request = Deletion(generation_id(generation))
        channel = await self._connection.open(request)
        try:
            await channel.receive()
        except UnknownGeneration:
            if request.sent == 1:
                raise
            # The connection was lost before the answer to the first attempt came.
        finally:
            channel.close()

    async def _report(self, request: Request) -> dict[str, Any]:
        channel = await self._connection.open(request)
        try:
            frame = await channel.receive()
        finally:
            channel.close()
        assert isinstance(frame, wire.Report)  # the protocol allows nothing else there
        return frame.report

    # Last, since below it the word means this method.
    async def list(
        self, limit: int = 20, *, state: str | None = None, before: str | None = None
    ) -> list[Entry]:
        """The user's newest generations, newest first, running ones included; at most `limit`.

        Args:
            limit: 1 to 1000.
            state: only those that are queued, running, done, failed, cancelled or interrupted.
            before: the id of a generation: only those made before it.

        Raises:
            ConnectError: the connection is lost.
            RequestError: `Unsupported`: the server is too old; `UnknownGeneration`: there is none
                of the id `before`.
            ValueError: `limit` is not from 1 to 1000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"limit must be from 1 to {MAX_LISTED}, not {limit}")
        before = None if before is None else generation_id(before)
        make = partial(wire.ListGenerations, limit=limit, state=state, before=before)
        request = Request(make, {"list": "has no list of generations"})
        entries: list[Entry] = []
        channel = await self._connection.open(request)
        try:
            while isinstance(frame := await channel.receive(), wire.Listing):
                entries[frame.first :] = map(Entry.of, frame.entries)
        finally:
            channel.close()
        return entries


def _floats(vector: bytes) -> list[float]:
    """A vector of the wire, float32 little-endian."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
