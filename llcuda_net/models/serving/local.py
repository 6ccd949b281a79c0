"""The models that a server runs itself, from settings to a pool; SIGHUP reads them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError, EngineError, RequestError
from llcuda_net.models.files.folder import stamp
from llcuda_net.models.files.machine import host_budget
from llcuda_net.models.files.memory import Estimate, default_context, estimate
from llcuda_net.models.need import Budget
from llcuda_net.models.serving.catalog import changed, describe_all
from llcuda_net.models.serving.instance import Described, Instance
from llcuda_net.models.serving.manager import Manager
from llcuda_net.scheduler.ticket import Ticket
from llcuda_net.upstream.engine.binary.arguments import shares_cache
from llcuda_net.upstream.engine.options import DEFAULT_ROLES, EngineOptions
from llcuda_net.upstream.engine.programs.choice import AUTO, choose_program
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.engine.supervisor import Engine
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.model.gguf import read_model_file
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.residence import Wishes
from llcuda_net.util import logs

log = structlog.get_logger(__name__)

#: Part of the GPU memory that is free at the start that models may take by default.
_OF_GPU = 0.9
#: Seconds between two looks whether the models folder has changed.
_LOOK = 5.0
#: More layers than any model has.
_ALL_LAYERS = 1 << 20


class LocalModels:
    """The pool of a server that runs its models itself.

    Args:
        demo: the model to run where the settings name none.

    Attributes:
        poller: reads the token streams of all of them.
        pool: has a backend for each.
        manager: loads and unloads them; it has none before `open`.
    """

    def __init__(self, settings: Settings, demo: Path | None = None) -> None:
        self.poller = Poller()
        self.pool = Pool(long_prompts=settings.max_long_prompts)
        self._wishes = Wishes()
        self.manager = Manager(self.pool, Budget(), self._wishes)
        self._settings = settings
        self._demo = demo
        self._folder: Path | None = None
        self._gpu_free = 0
        self._shows_progress = False
        #: Those that run models, by the setting that chooses them; and which were told of.
        self._programs: dict[str, Program] = {}
        self._chosen: dict[str, str] = {}
        self._reloading = trio.Lock()

    def __repr__(self) -> str:
        return f"<LocalModels: {self.manager!r}, {self.pool!r}>"

    async def open(
        self,
        nursery: trio.Nursery,
        folder: Path | None,
        waiting: Callable[[], Iterable[Ticket]] = tuple,
    ) -> Pool:
        """The pool. A lone model is loaded when this returns; of several, those that are to be at
        the start are loaded meanwhile.

        Args:
            folder: where hashes of model files are kept; None: none are computed.
            waiting: returns the tickets that wait, in the order in which they are served.

        Raises:
            ConfigError: a name means no file.
            EngineError: a file cannot be used, or the lone model cannot be loaded.
        """
        self._folder = folder
        described = await trio.to_thread.run_sync(describe_all, self._settings, self._demo)
        await self._choose_programs(described)
        self._gpu_free = self._free_gpu_memory()
        self.manager.set_budget(self._budget(self._settings, alone=len(described) == 1))
        for instance in await self._instances(described):
            self.manager.add(instance)
        self.manager.warn_of_what_never_fits()
        await nursery.start(self.manager.run, waiting)
        if self._settings.models is not None:
            nursery.start_soon(self._follow_folder)
        if len(described) == 1:
            await self._first(described[0])
        return self.pool

    async def _first(self, described: Described) -> None:
        try:
            await self.manager.settled(described.name)
        except RequestError as error:
            raise EngineError(error.message) from None
        finally:
            self._shows_progress = False
            logs.progress("")

    async def reload(self, settings: Settings) -> None:
        """Apply changed settings: new models come in, those that are gone leave.

        Raises:
            ConfigError: they cannot be applied; nothing was changed.
        """
        if settings.upstream:
            raise ConfigError("models and upstreams cannot take each other's place: restart")
        async with self._reloading:
            await self._reload(settings)

    async def _follow_folder(self) -> None:
        """Take in models that are put into the folder, and let go those taken out of it."""
        seen = last = await trio.to_thread.run_sync(self._stamp)
        told = ""
        while True:
            await trio.sleep(_LOOK)
            now = await trio.to_thread.run_sync(self._stamp)
            settled, last = now & last, now  # a file that is being copied waits until it is whole
            if settled == seen:
                continue
            try:
                async with self._reloading:  # with those that a SIGHUP may have brought meanwhile
                    await self._reload(self._settings)
            except ConfigError as error:
                if str(error) != told:  # it is tried again until it can be read
                    told = str(error)
                    log.warning("models_not_read", reason=told)
            except Exception:  # a bug at one file must not end the server
                log.exception("models_not_followed")
                seen = settled
            else:
                seen, told = settled, ""
                log.info("models_read", models=[one.name for one in self.manager.instances][:100])

    def _stamp(self) -> frozenset[tuple[str, int, int]]:
        folder = self._settings.models
        return frozenset() if folder is None else stamp(Path(folder).expanduser())

    async def _reload(self, settings: Settings) -> None:
        if not self.manager.instances:
            raise ConfigError("the server is still starting: send the signal again later")
        try:
            described = await trio.to_thread.run_sync(describe_all, settings, self._demo)
            await self._choose_programs(described)
            gone, different = changed((one.described for one in self.manager.instances), described)
            fresh = await self._instances(different)
        except EngineError as error:
            raise ConfigError(str(error)) from None
        for name in gone:
            self.manager.remove(name)
        for instance in fresh:
            self.manager.add(instance)
        self.manager.set_budget(self._budget(settings, alone=len(described) == 1))
        self._settings = settings

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for instance in self.manager.instances:
            await instance.aclose()

    async def _choose_programs(self, described: list[Described]) -> None:
        """Find out what runs each model. Raises EngineError."""
        by_setting: dict[str, list[Described]] = {}
        for one in described:
            by_setting.setdefault(_engine(one), []).append(one)
        found: dict[str, Program] = {}
        for setting, models in by_setting.items():
            layers = [one.spec.gpu_layers for one in models]
            asked = max((count for count in layers if count is not None), default=0)
            choice = await choose_program(
                setting,
                gpu_layers=asked or (None if None in layers else 0),
                options=any(one.spec.options for one in models),
            )
            found[setting] = choice.program
            if choice.program.setting == self._chosen.get(setting):
                continue  # it was said before
            self._chosen[setting] = choice.program.setting
            log.info("engine_chosen", engine=choice.program.name, why=choice.why)
            for warning in choice.warnings:
                log.warning("engine_warning", reason=warning)
        self._programs = found

    def _free_gpu_memory(self) -> int:
        """Bytes that are free of all GPUs which a program can use."""
        return max(
            (
                sum(device.free or 0 for device in one.devices or ())
                for one in self._programs.values()
            ),
            default=0,
        )

    def _budget(self, settings: Settings, *, alone: bool) -> Budget:
        """What all models may take together; a lone one may take what it takes."""
        host, gpu = settings.memory, settings.gpu_memory
        if host is None and not alone:
            host = host_budget()
        if gpu is None and self._gpu_free and not alone:
            gpu = int(_OF_GPU * self._gpu_free)
        return Budget(host, gpu)

    async def _instances(self, described: list[Described]) -> list[Instance]:
        """Models as they are to be run. Raises ConfigError, EngineError."""
        self._shows_progress = len(described) == 1 and not self.manager.instances
        found = []
        for one in described:
            program = self._programs[_engine(one)]
            options = options_of(one)
            # It may read the header of a draft.
            needs = await trio.to_thread.run_sync(_estimate, one, options, program)
            found.append(self._instance(one, options, program, needs))
        return found

    def _instance(
        self, described: Described, options: EngineOptions, program: Program, needs: Estimate
    ) -> Instance:
        def make_engine(on_change: Callable[[], None]) -> Engine:
            return Engine(options, program, on_progress=self._progress, on_change=on_change)

        return Instance(
            described,
            needs,
            make_engine,
            self._server,
            self.poller,
            self._wishes,
            folder=self._folder,
        )

    def _progress(self, text: str) -> None:
        """Show how far the lone model is that the server waits for."""
        if self._shows_progress:
            logs.progress(text)

    def _server(self, url: str, key: str) -> LlamaServer:
        timeouts = StreamTimeouts(self._settings.stall_timeout, self._settings.first_token_timeout)
        return LlamaServer(url, self.poller, api_key=key, timeouts=timeouts)


def _estimate(described: Described, options: EngineOptions, program: Program) -> Estimate:
    """The memory that a model takes when it is loaded so."""
    layers = _ALL_LAYERS if options.gpu_layers is None else options.gpu_layers
    draft = None if options.draft is None else read_model_file(options.draft)
    return estimate(
        described.model,
        ctx=options.ctx or default_context(described.model),
        slots=options.slots,
        gpu_layers=layers if program.has_gpu else 0,
        cache_type_k=options.cache_type_k or "f16",
        cache_type_v=options.cache_type_v or "f16",
        unified=program.builtin or shares_cache(program, options.options),
        flash_attention=options.flash_attn != "off",
        embeddings=program.builtin,  # see engine/child.py
        mmproj=0 if options.mmproj is None else _size(options.mmproj),
        lora=sum(_size(path) for path, _ in options.lora),
        draft=draft,
        draft_gpu_layers=options.draft_gpu_layers if program.has_gpu else 0,
    )


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it is not there, which its load will say."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def options_of(described: Described) -> EngineOptions:
    """What the engine of a model is to run.

    Raises:
        ConfigError: an option is not for it.
    """
    spec = described.spec
    return EngineOptions(
        model=described.file,
        ctx=spec.ctx,
        slots=spec.slots or 1,
        threads=spec.threads,
        gpu_layers=spec.gpu_layers,
        alias=spec.name,
        roles=DEFAULT_ROLES & spec.roles or spec.roles,
        mmproj=None if spec.mmproj is None else Path(spec.mmproj),
        lora=tuple((Path(file), scale) for file, scale in spec.lora),
        draft=None if spec.draft is None else Path(spec.draft),
        draft_gpu_layers=spec.draft_gpu_layers,
        chat_template=None if spec.chat_template is None else Path(spec.chat_template),
        cache_type_k=spec.cache_type_k,
        cache_type_v=spec.cache_type_v,
        flash_attn=spec.flash_attn,
        rope_scaling=spec.rope_scaling,
        rope_scale=spec.rope_scale,
        rope_freq_base=spec.rope_freq_base,
        rope_freq_scale=spec.rope_freq_scale,
        yarn_orig_ctx=spec.yarn_orig_ctx,
        options=spec.options,
    )


def _engine(described: Described) -> str:
    return described.spec.engine or AUTO
