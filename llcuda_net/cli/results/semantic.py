"""`llcuda results search --semantic`: results by meaning, from the server or the store itself."""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import trio

from llcuda_net import sync
from llcuda_net.analysis.embeddings import LongTexts
from llcuda_net.analysis.vector_index import RECIPE, VectorIndex
from llcuda_net.cli.common import Exit, fail, read_token
from llcuda_net.cli.json_documents import line
from llcuda_net.cli.results.command import data_directory
from llcuda_net.cli.tables import id_cell
from llcuda_net.cli.units import counted, iso, local
from llcuda_net.client.results import Hit
from llcuda_net.errors import EngineError, RequestError
from llcuda_net.storage.directory_lock import holder
from llcuda_net.storage.results.interface import Space, Store
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.model.fingerprint import file_of, hash_of_file
from llcuda_net.util import logs
from llcuda_net.util.address import Address, parse_addresses
from llcuda_net.util.terminal import echo, one_line, paint
from llcuda_protocol.kinds import MAX_HITS

#: Tokens of context that the engine needs: it embeds no longer text in one piece.
_CONTEXT = 512
#: How a server that listens everywhere is reached from here.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def semantic_results(arguments: argparse.Namespace, store: Store) -> int:
    """Run `llcuda results search --semantic`."""
    given = {"model": arguments.model, "since": arguments.since, "until": arguments.until}
    given["state"] = arguments.states
    for name, value in given.items():
        if value is not None:
            fail(f"--semantic searches all results: --{name} does not go with it")
    text = " ".join(arguments.words)
    if not text.strip():
        fail("the text to search for is empty")
    k = min(arguments.limit or MAX_HITS, MAX_HITS)
    folder = data_directory(arguments)
    address = arguments.server or holder(folder)
    if address is None:
        hits, backlog = _in_the_store(store, folder, text, k)
    else:
        hits, backlog = _at_the_server(address, arguments, text, k)
    _show(hits, as_json=arguments.json)
    if backlog:
        echo(
            f"not found yet: {counted(backlog, 'result')} that llcuda-server has still to analyse",
            file=sys.stderr,
        )
    return Exit.OK


def _show(hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        for hit in hits:
            echo(line(_document(hit)))
        return
    for number, hit in enumerate(hits):
        when = local(_nanoseconds(hit))
        head = f"{hit.score:.3f}  {id_cell(hit.id)}  {when}  {hit.state}  {hit.model}"
        echo(("\n" if number else "") + paint(one_line(head), "2", sys.stdout), styled=True)
        for name, excerpt in (("prompt", hit.preview), ("text", hit.text)):
            if excerpt:
                echo(f"  {name:<6}  {one_line(excerpt)}")
    if not hits:
        echo("no results match", file=sys.stderr)


def _document(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.id,
        "score": hit.score,
        "state": hit.state,
        "created": iso(_nanoseconds(hit)),
        "model": hit.model,
        "completion_tokens": hit.tokens,
        "preview": hit.preview,
        "text": hit.text,
    }


def _nanoseconds(hit: Hit) -> int:
    return round(hit.created * 1e6) * 1000  # a float of seconds holds no more


# -- the server ---------------------------------------------------------------------------------


def _at_the_server(
    address: str, arguments: argparse.Namespace, text: str, k: int
) -> tuple[list[Hit], int]:
    if not address:
        fail("the server of the data directory does not say where it listens: give --server")
    servers = parse_addresses(address)
    found = ",".join(str(Address(_LOOPBACK.get(one.host, one.host), one.port)) for one in servers)
    token = read_token(arguments.token_file)
    with sync.connect(found, tls=arguments.tls, tls_ca=arguments.tls_ca, token=token) as client:
        hits = client.search(text, k)
        backlog = client.status().get("analysis", {}).get("backlog", 0)
    return hits, backlog


# -- the store ----------------------------------------------------------------------------------


def _in_the_store(store: Store, folder: Path, text: str, k: int) -> tuple[list[Hit], int]:
    spaces = [space for space in store.analyses.spaces() if space.recipe == RECIPE]
    if not spaces:
        return [], store.analyses.lag(0)
    # The one that goes furthest, and of those the newest, whose model is here.
    spaces.sort(key=lambda space: (-space.seq, -space.id))
    with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as demo:
        for space in spaces:
            model = _model_of(space, folder, demo)
            if model is not None:
                vector = trio.run(_vector, model, text)
                break
        else:
            name = one_line(str(spaces[0].model.get("name", "")))
            fail(
                f"the embeddings are of the model {name}, whose file is not here any more: start "
                "llcuda-server with it, on this data directory",
                Exit.REFUSED,
            )
    near = VectorIndex.load(store.analyses, space)
    found = []
    if len(vector) == space.dim:
        found = near.safely(
            store.analyses, space, lambda: near.search(vector, k, store.analyses, None)
        )
    hits = [
        Hit(
            id=summary.id,
            score=score,
            created=summary.created / 1e9,
            state=summary.state,
            model=summary.model,
            tokens=summary.tokens,
            preview=summary.preview,
            text=beginning,
        )
        for summary, beginning, score in found
    ]
    return hits, store.analyses.lag(space.seq)


def _model_of(space: Space, folder: Path, demo: Path) -> Path | None:
    """The file of a space's model; None where it is not here."""
    if "hash" not in space.model:
        return None
    if space.model["hash"] == hash_of_file(demo):
        return demo
    return file_of(space.model, folder)


async def _vector(model: Path, text: str) -> list[float]:
    """A text's embedding by the built-in engine.

    Raises:
        EngineError: it does not start with this model.
        RequestError: it cannot embed the text.
    """
    logs.configure("error", "human")
    engine = Engine(EngineOptions(model, ctx=_CONTEXT, slots=1), on_progress=logs.progress)
    failure: EngineError | RequestError | None = None
    vector: list[float] = []
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(engine.run)
            assert engine.base_url is not None
            upstream = LlamaServer(engine.base_url, Poller(), api_key=engine.api_key)
            try:
                (vector,) = await LongTexts(upstream.embed).vectors([text])
            finally:
                await upstream.aclose()
        except (EngineError, RequestError) as error:
            failure = error
        finally:
            logs.progress("")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return vector
