"""An engine: llama.cpp's server in a child process, kept running.

The child is a process of its own, so that a crash of native code is a restart and not the end of
the server. It is started again with backoff whenever it dies, and it never outlives its parent: see
`child.py` for how the built-in engine does that, and `binary/keeper.py` for a llama-server.
"""

from __future__ import annotations

import math
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, RERANK
from llcuda_net.errors import ConfigError, EngineError
from llcuda_net.upstream.engine.binary.arguments import command_line, shares_cache
from llcuda_net.upstream.engine.binary.look import LLGUIDANCE
from llcuda_net.upstream.engine.binary.process import BinaryLaunch, withheld_variables
from llcuda_net.upstream.engine.context_size import check_context, prompt_cache
from llcuda_net.upstream.engine.files import check_files
from llcuda_net.upstream.engine.load_progress import show_progress
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildEnd, ChildSettings, Launch, run_child
from llcuda_net.upstream.engine.programs.program import Program, remedy_of
from llcuda_net.upstream.engine.spare import identity, spare_engine, spare_settings
from llcuda_net.upstream.model.gguf import ModelFile, read_model_file, show_path

log = structlog.get_logger(__name__)

DEFAULT_CTX = 4096
FIRST_DELAY = 0.25
LONGEST_DELAY = 30.0
#: Bytes below which one thread computes: a layer takes microseconds, and threads that wait for each
#: other by spinning lose far more than that on a busy machine.
SMALL_MODEL = 32 << 20
STEADY_SECONDS = 60.0  # up for this long, it was healthy: the next death starts the backoff anew


class Engine:
    """A llama-server of our own, for as long as `run` runs.

    Args:
        options: what to run.
        program: what runs it; None: the built-in engine.
        on_progress: called with a short text, at most ten times a second, while the model is
            loaded for the first time.
        on_change: called whenever `base_url` has appeared or gone.
        launch: runs one child; replaced in tests.

    Raises:
        ConfigError: there are options for a llama-server, and the program is none.
    """

    def __init__(
        self,
        options: EngineOptions,
        program: Program | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
        on_change: Callable[[], None] | None = None,
        launch: Launch | None = None,
    ) -> None:
        self.program = program or Program(None)
        if self.program.builtin and options.options:
            raise ConfigError(
                f"{options.options[0]} is an option of a llama-server, and the built-in engine has "
                "no command line: name a llama-server with --engine PATH"
            )
        if launch is None:
            launch = run_child if self.program.builtin else BinaryLaunch(self.program)
        self._options = options
        self._on_progress = on_progress
        self._on_change = on_change
        self._launch = launch
        self._api_key = secrets.token_urlsafe(24)
        self._base_url: str | None = None
        self._pid: int | None = None
        self._restarts = 0
        self._steady = False  # whether the last child was healthy for a while
        self._model: ModelFile | None = None
        self._files: object = None  # which the child that answers has loaded

    def __repr__(self) -> str:
        where = f"pid {self._pid} at {self._base_url or 'no address yet'}" if self._pid else "down"
        return f"<Engine {self._options.model.name}: {where}, {self._restarts} restarts>"

    @property
    def base_url(self) -> str | None:
        """Where it answers; None while it does not. It may be another one after a restart."""
        return self._base_url

    @property
    def api_key(self) -> str:
        """The bearer token that it requires: other users of this machine have none."""
        return self._api_key

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is a child."""
        return self._pid

    @property
    def unified(self) -> bool:
        """Whether its slots share one KV cache, as far as is known before it is asked."""
        return self.program.builtin or shares_cache(self.program, self._options.options)

    @property
    def restarts(self) -> int:
        """How many times a dead child has been replaced."""
        return self._restarts

    def facts(self) -> dict[str, Any]:
        """What it is and can do, in JSON's types: the program's facts and `features`.

        `schema_engine` is what checks grammars and schemas: llguidance, or llama.cpp's own (gbnf);
        None while that is not known.
        """
        options = self._options
        builtin = self.program.builtin
        features = sorted(options.roles)
        schema_engine: str | None = LLGUIDANCE if builtin else None
        if isinstance(self._launch, BinaryLaunch):
            able = self._launch.ability
            schema_engine = able.schema_engine if able is not None else None
            if not self._launch.embeds and COMPLETIONS in features and EMBEDDINGS in features:
                features.remove(EMBEDDINGS)
        if builtin or "--jinja" in self.program.flags:
            features.append("tools")  # where the model's template has them
        if options.mmproj is not None:
            features.append("multimodal")
        if options.draft is not None:
            features.append("speculative")
        if options.lora:
            features.append("lora")
        return {**self.program.facts(), "features": features, "schema_engine": schema_engine}

    def public_facts(self) -> dict[str, Any]:
        """The same, as everybody may know it: without the folder of the program."""
        return {**self.facts(), **self.program.public_facts()}

    @asynccontextmanager
    async def spare(self) -> AsyncIterator[tuple[str, str] | None]:
        """A second engine, for embeddings only: base URL and API key; see `spare.py`.

        None where there should be none, or it does not start.
        """
        settings = None
        if self._model is not None and self._base_url is not None:
            settings = spare_settings(
                self._model, self._settings(self._model), self._options.threads
            )
        if settings is None or self._model is None or _files(self._model) != self._files:
            yield None
            return
        async with spare_engine(self._launch, settings) as url:
            yield None if url is None else (url, settings.api_key)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the engine until cancelled; started once it has answered for the first time.

        The child is gone when this returns, in whatever way.

        Raises:
            EngineError: the model file is not usable, the context is too large, the model could not
                be loaded, or the engine does not run on this machine; one line. After the first
                success nothing is raised: the engine is started again for ever.
        """
        model = await trio.to_thread.run_sync(read_model_file, self._options.model)
        check_context(model, self._options)
        await trio.to_thread.run_sync(check_files, self._options, model)
        settings = self._settings(model)
        if not self.program.builtin:
            command_line(self.program, settings, 0)  # refuses what this build has not
            if withheld := withheld_variables(os.environ):
                log.warning(
                    "engine_environment_ignored",
                    variables=list(withheld),
                    hint="give llama-server's options behind --",
                )
        self._model = model
        await self._first_life(model, settings, task_status)
        delay = FIRST_DELAY
        while True:
            if self._steady:
                delay = FIRST_DELAY
            # Jitter: several servers on one machine must not all load again at once.
            await trio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, LONGEST_DELAY)
            self._restarts += 1
            self._report(await self._life(settings, lambda: None))

    async def _first_life(
        self, model: ModelFile, settings: ChildSettings, task_status: trio.TaskStatus[None]
    ) -> None:
        loaded = False
        progress = trio.CancelScope()

        def ready() -> None:
            nonlocal loaded
            loaded = True
            progress.cancel()
            task_status.started()

        async with trio.open_nursery() as nursery:
            if self._on_progress is not None:
                nursery.start_soon(_progress, progress, model, self._on_progress)
            end = await self._life(settings, ready)
            progress.cancel()
        if not loaded:
            raise self._refusal(end)
        self._report(end)

    async def _life(self, settings: ChildSettings, ready: Callable[[], None]) -> ChildEnd:
        """Run one child from its start to its end."""
        start = trio.current_time()
        ready_at = math.inf
        if self._model is not None:
            self._files = _files(self._model)

        def on_start(pid: int) -> None:
            self._pid = pid

        def on_ready(url: str) -> None:
            nonlocal ready_at
            ready_at = trio.current_time()
            facts = self.facts()
            log.info(
                "engine_started",
                engine=facts["engine"],
                version=facts["version"],
                devices=[device.name for device in self.program.devices or ()],
                features=facts["features"],
                schema_engine=facts["schema_engine"],
                pid=self._pid,
                url=url,
                model=settings.alias,
                ctx=settings.ctx,
                slots=settings.slots,
                restarts=self._restarts,
                seconds=round(ready_at - start, 3),
            )
            self._set_url(url)
            ready()

        try:
            end = await self._launch(settings, on_start, on_ready)
        except OSError as error:  # too many processes, or no memory
            end = ChildEnd(f"the engine could not be started: {error.strerror or error}", 1)
        finally:
            self._pid = None
            self._set_url(None)
        self._steady = trio.current_time() - ready_at >= STEADY_SECONDS
        return end

    def _report(self, end: ChildEnd) -> None:
        log.error(
            "engine_died", why=end.why, returncode=end.returncode, last_lines=list(end.last_lines)
        )

    def _set_url(self, url: str | None) -> None:
        changed = url != self._base_url
        self._base_url = url
        if changed and self._on_change is not None:
            self._on_change()

    def _settings(self, model: ModelFile) -> ChildSettings:
        options = self._options
        ctx = options.ctx or min(model.trained_context or DEFAULT_CTX, DEFAULT_CTX)
        return ChildSettings(
            model=str(options.model.absolute()),
            alias=options.name,
            ctx=ctx,
            slots=options.slots,
            threads=options.threads or (1 if model.size < SMALL_MODEL else None),
            gpu_layers=options.gpu_layers,
            pooling=model.pooling,
            prompt_cache=prompt_cache(model, ctx, options),
            api_key=self._api_key,
            completions=COMPLETIONS in options.roles,
            embeddings=EMBEDDINGS in options.roles,
            rerank=RERANK in options.roles,
            mmproj=_path(options.mmproj),
            lora=tuple((str(path.absolute()), scale) for path, scale in options.lora),
            draft=_path(options.draft),
            draft_gpu_layers=options.draft_gpu_layers,
            chat_template=_path(options.chat_template),
            cache_type_k=options.cache_type_k,
            cache_type_v=options.cache_type_v,
            flash_attn=options.flash_attn,
            rope_scaling=options.rope_scaling,
            rope_scale=options.rope_scale,
            rope_freq_base=options.rope_freq_base,
            rope_freq_scale=options.rope_freq_scale,
            yarn_orig_ctx=options.yarn_orig_ctx,
            options=options.options,
        )

    def _refusal(self, end: ChildEnd) -> EngineError:
        if end.unusable:
            remedy = remedy_of(end.why)
            if not self.program.builtin:
                remedy = "name another one with --engine PATH, or use --engine builtin"
            return EngineError(
                f"{self.program.name} cannot run on this machine ({end.why}); {remedy}"
            )
        return EngineError(f"cannot load {show_path(self._options.model)}: {end.why}")


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _files(model: ModelFile) -> object:
    try:
        return identity(model)
    except OSError:
        return None


async def _progress(scope: trio.CancelScope, model: ModelFile, show: Callable[[str], None]) -> None:
    with scope:
        await show_progress(model, show)
