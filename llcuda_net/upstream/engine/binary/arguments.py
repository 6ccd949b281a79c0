"""The command line of a llama-server: from our settings, with the options that its build has.

Options come and go with llama.cpp's builds, and a llama-server ends at one that it does not know.
So only what its `--help` names is given. What is merely of use is left out where it is missing;
what the user asks for is an error then.
"""

from __future__ import annotations

from collections.abc import Iterator

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.child import BATCH, RANK, SPARE_HTTP_THREADS, sensible_threads
from llcuda_net.upstream.engine.process import ChildSettings
from llcuda_net.upstream.engine.programs.program import Program

#: More layers than any model has.
_ALL_LAYERS = 999
#: Options with which all slots share one cache, each held to its part of it.
_SHARED = ("--kv-unified", "--kv-unified-per-slot")
_SEPARATE = frozenset({"-no-kvu", "--no-kv-unified"})


def command_line(program: Program, settings: ChildSettings, port: int) -> list[str]:
    """How to start a llama-server.

    Raises:
        EngineError: this one lacks an option that a setting needs; one line.
    """
    return [str(program.path), *_Arguments(program, settings, port)]


def shares_cache(program: Program, options: tuple[str, ...]) -> bool:
    """Whether all slots of a llama-server that is started so share one KV cache."""
    return program.flags >= set(_SHARED) and not _SEPARATE & set(options)


class _Arguments:
    """All arguments, in order: later ones win, so the user's come last."""

    def __init__(self, program: Program, settings: ChildSettings, port: int) -> None:
        self._program = program
        self._settings = settings
        self._port = port

    def __iter__(self) -> Iterator[str]:
        settings = self._settings
        yield from ("--model", settings.model)
        yield from ("--host", "127.0.0.1", "--port", str(self._port))
        yield from self._context()
        yield from self._server()
        yield from self._devices()
        yield from self._roles()
        yield from self._model()
        yield from settings.options

    def _context(self) -> Iterator[str]:
        settings = self._settings
        yield from ("--parallel", str(settings.slots))
        yield from ("--ctx-size", str(settings.ctx * settings.slots))
        if shares_cache(self._program, settings.options):
            # One cache for all slots, each held to its share, so that no long prompt starves the
            # rest. Without the second flag, a cache for each is what keeps them apart.
            yield from ("--kv-unified", "--kv-unified-per-slot", str(settings.ctx))
        yield from self._useful("--no-context-shift")
        yield from self._useful("--cache-ram", settings.prompt_cache)
        for flag, kind in (
            ("--cache-type-k", settings.cache_type_k),
            ("--cache-type-v", settings.cache_type_v),
        ):
            yield from self._needed(flag.removeprefix("--").replace("-", "_"), kind, flag)
        yield from self._flash_attention()

    def _flash_attention(self) -> Iterator[str]:
        wanted = self._settings.flash_attn
        if wanted is None:
            return
        if not self._program.takes.get("--flash-attn"):  # of an old build: a switch
            if wanted == "on":
                yield from self._needed("flash_attn", "", "--flash-attn")
            return
        yield from ("--flash-attn", wanted)

    def _server(self) -> Iterator[str]:
        settings = self._settings
        # Commas separate aliases.
        yield from self._useful("--alias", settings.alias.replace(",", "_"))
        for flag in ("--slots", "--metrics", "--offline", "--jinja"):
            yield from self._useful(flag)
        yield from self._useful("--no-ui", or_else="--no-webui")
        yield from self._useful("--cors-origins", "localhost")  # no page has business here
        yield from self._useful("--threads-http", settings.slots + SPARE_HTTP_THREADS)
        for flag in ("--log-prefix", "--log-timestamps"):  # by which its own lines are told apart
            yield from self._useful(flag)

    def _devices(self) -> Iterator[str]:
        settings, program = self._settings, self._program
        threads = settings.threads or sensible_threads()
        if threads is not None:
            yield from ("--threads", str(threads))
            yield from self._useful("--threads-batch", threads)
        may_have_gpu = program.devices is None or program.has_gpu
        if settings.gpu_layers:
            yield from self._needed("gpu_layers", settings.gpu_layers, "--gpu-layers")
        elif may_have_gpu and settings.gpu_layers == 0:
            yield from self._useful("--gpu-layers", 0)
            yield from self._useful("--device", "none")
        elif may_have_gpu and "--fit" not in program.flags:
            yield from self._useful("--gpu-layers", _ALL_LAYERS)  # else: none, in an old build

    def _roles(self) -> Iterator[str]:
        settings = self._settings
        if settings.rerank or settings.pooling == RANK:  # it ranks only where it is asked to
            yield from self._needed("the role rerank", "", "--rerank", "--reranking")
        elif settings.embeddings:
            yield from self._needed("the role embeddings", "", "--embeddings", "--embedding")
            if settings.pooling is None:  # a model made for embedding names its own
                yield from ("--pooling", "mean")
        else:
            return
        # As large for both: what is embedded must fit in one. A multiple of the slots: mean pooling
        # fails an assertion otherwise (llama.cpp issue 27175).
        batch = -(-BATCH // settings.slots) * settings.slots
        yield from ("--batch-size", str(batch), "--ubatch-size", str(batch))

    def _model(self) -> Iterator[str]:
        settings = self._settings
        yield from self._needed("mmproj", settings.mmproj, "--mmproj")
        yield from self._lora()
        yield from self._needed("draft", settings.draft, "--model-draft", "--spec-draft-model")
        if settings.draft is not None and "draft-simple" in self._program.takes.get(
            "--spec-type", ""
        ):
            yield from ("--spec-type", "draft-simple")
        yield from self._needed(
            "draft_gpu_layers",
            settings.draft_gpu_layers,
            "--gpu-layers-draft",
            "--n-gpu-layers-draft",
        )
        yield from self._needed("chat_template", settings.chat_template, "--chat-template-file")
        for name in (
            "rope_scaling",
            "rope_scale",
            "rope_freq_base",
            "rope_freq_scale",
            "yarn_orig_ctx",
        ):
            yield from self._needed(name, getattr(settings, name), "--" + name.replace("_", "-"))

    def _lora(self) -> Iterator[str]:
        for path, scale in self._settings.lora:
            if scale == 1.0:
                yield from self._needed("lora", path, "--lora")
                continue
            behind = self._program.takes.get("--lora-scaled", "")
            if ":" not in behind:  # an old build: two arguments
                yield from self._needed("lora", path, "--lora-scaled")
                yield f"{scale:g}"
                continue
            if "," in path or ":" in path:
                raise EngineError(
                    f"the path of the LoRA adapter {path} has a comma or a colon, between which "
                    "llama-server tells adapters apart: rename it"
                )
            yield from self._needed("lora", f"{path}:{scale:g}", "--lora-scaled")

    def _useful(
        self, flag: str, value: object | None = None, or_else: str | None = None
    ) -> Iterator[str]:
        """An option that this build may lack."""
        for one in (flag, or_else):
            if one is not None and one in self._program.flags:
                yield one
                if value is not None:
                    yield str(value)
                return

    def _needed(self, setting: str, value: object | None, *flags: str) -> Iterator[str]:
        """An option that a setting needs, by the first name that this build knows."""
        if value is None:
            return
        for flag in flags:
            if flag in self._program.flags:
                yield flag
                if value != "":
                    yield str(value)
                return
        raise EngineError(
            f"{self._program.name} ({self._program.version or 'of no known version'}) has no "
            f"{flags[0]}, which {setting} needs: use a newer llama-server, or leave {setting} out"
        )
