"""A second engine for many texts to embed: all cores, at the lowest priority, ended at once.

The first engine computes with one thread where the model is small, at normal priority, and what it
has begun it finishes, however urgent the next request is. A backlog of results is embedded by a
process of its own instead, which exists only while that goes on: nothing waits for it, and its
prompts leave the prompt cache alone. It has the same file and the same pooling, so its vectors are
in the same space.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
import trio

from llcuda_net.upstream.engine.context_size import memory_here
from llcuda_net.upstream.engine.process import ChildEnd, ChildSettings, Launch
from llcuda_net.upstream.model.gguf import ModelFile

log = structlog.get_logger(__name__)

#: Bytes of the largest model that is loaded a second time, and its share of the memory here.
LARGEST, LARGEST_SHARE = 1 << 30, 0.1
#: Texts that it embeds at the same time, and tokens of each (as many as the first engine takes).
SLOTS, CTX = 4, 512
#: Seconds for it to load. What takes longer would seldom get to work in somebody's pause.
LOAD_TIMEOUT = 20.0


def spare_settings(
    model: ModelFile, settings: ChildSettings, threads: int | None
) -> ChildSettings | None:
    """Of a second engine beside one with these settings; None where there should be none.

    Not where a GPU computes (it is fast, and its memory is for contexts), nor with a large model,
    nor for one that does not embed.

    Args:
        threads: as the user has asked for; None: all cores.
    """
    if not settings.embeddings or settings.rerank:
        return None
    memory = memory_here()
    if memory is None or model.size > min(LARGEST, memory * LARGEST_SHARE):
        return None
    return replace(
        settings,
        ctx=CTX,
        slots=SLOTS,
        threads=threads,
        prompt_cache=0,
        api_key=secrets.token_urlsafe(24),
        nice=19,
        completions=False,
        mmproj=None,
        draft=None,
        draft_gpu_layers=None,
    )


def identity(model: ModelFile) -> tuple[tuple[int, int, int], ...]:
    """Which files these are now: another model under the same name has another space.

    Raises:
        OSError: one cannot be read.
    """
    stats = [part.stat() for part in model.parts]
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


@asynccontextmanager
async def spare_engine(launch: Launch, settings: ChildSettings) -> AsyncIterator[str | None]:
    """The base URL of a second engine, which is gone afterwards; None if it does not start."""
    url: str | None = None
    failed: Exception | None = None
    start = trio.current_time()
    known = trio.Event()

    def ready(found: str) -> None:
        nonlocal url
        url = found
        known.set()

    async def live() -> None:
        try:
            end = await launch(settings, lambda _pid: None, ready)
        except OSError as error:  # too many processes, or no memory
            end = ChildEnd(f"it could not be started: {error.strerror or error}", 1)
        log.warning("spare_engine_died", why=end.why, last_lines=list(end.last_lines))
        known.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        with trio.move_on_after(LOAD_TIMEOUT):
            await known.wait()
        if url is not None:
            seconds = round(trio.current_time() - start, 3)
            log.debug("spare_engine_started", url=url, seconds=seconds)
        try:
            yield url
        except Exception as error:  # not in a group with what becomes of the child
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
