"""The options that choose a llama-server or a model for the built-in engine, and what they open."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llcuda_net.cli.common import Parser, fail, read_secret
from llcuda_net.config.upstreams import without_credentials

if TYPE_CHECKING:
    from llcuda_net.batch.targets.interface import Target
    from llcuda_net.cli.batch.options import Open


def add(parser: Parser) -> None:
    """Which model, where."""
    group = parser.add_argument_group("which model")
    group.add_argument("--upstream", metavar="URL", help="a llama-server that already runs")
    group.add_argument("--api-key-file", metavar="FILE", help="the key that it asks for")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help="what the built-in engine runs: a GGUF file, a name in the models folder, or a short"
        " name such as smollm2 (default: the demonstration model)",
    )
    group.add_argument(
        "--yes", action="store_true", help="download without asking a model that --model names"
    )
    group.add_argument("--ctx", type=int, metavar="N", help="engine: tokens of context per slot")
    group.add_argument("--threads", type=int, metavar="N", help="engine: CPU threads")
    group.add_argument("--gpu-layers", type=int, metavar="N", help="engine: layers on the GPU")


def opener(arguments: argparse.Namespace, slots: int) -> tuple[str, Open]:
    """The name of what was chosen, and what opens it, each time anew.

    Args:
        slots: of the engine.

    Raises:
        CommandError: the options contradict each other.
        ConfigError: a number of the engine's cannot be meant, or the name of a model.
    """
    if arguments.upstream is not None:
        if not arguments.upstream.startswith(("http://", "https://")):
            fail(
                f"--upstream {without_credentials(arguments.upstream)} is no URL such as"
                " http://127.0.0.1:8080;"
                " to ask an llcuda-server, use llcuda-client or llcuda-mpi"
            )
        if arguments.model is not None:
            fail("give --upstream or --model, not both")
        if arguments.yes:
            fail("--yes is for --model: with --upstream there is nothing to download")
        for name in ("ctx", "threads", "gpu_layers"):
            if getattr(arguments, name) is not None:
                flag = "--" + name.replace("_", "-")
                fail(f"{flag} is for the built-in engine and does nothing beside --upstream")
        from llcuda_net.batch.targets.opening import open_target

        key = None
        if arguments.api_key_file is not None:
            key = read_secret(arguments.api_key_file, "API key file").strip()
        name = without_credentials(arguments.upstream)
        return name, partial(open_target, arguments.upstream, api_key=key)
    if arguments.api_key_file is not None:
        fail("--api-key-file is for --upstream: the built-in engine has a key of its own")
    if arguments.model is not None:
        from llcuda_net.cli.models.command import default_models_folder
        from llcuda_net.cli.models.named import find_named

        found = find_named(arguments.model, default_models_folder(), yes=arguments.yes, ask=True)
        arguments.model = str(found.file) if found else arguments.model
    return "built-in engine", partial(_engine, arguments, slots)


@asynccontextmanager
async def _engine(arguments: argparse.Namespace, slots: int) -> AsyncIterator[Target]:
    """An engine of our own, for the length of the block."""
    from importlib import resources

    from llcuda_net.batch.targets.opening import in_nursery, open_target
    from llcuda_net.upstream.engine.options import EngineOptions
    from llcuda_net.upstream.engine.supervisor import Engine

    with resources.as_file(resources.files("llcuda_net.data") / "demo.gguf") as demo:
        options = EngineOptions(
            Path(arguments.model) if arguments.model else demo,
            ctx=arguments.ctx,
            slots=slots,
            threads=arguments.threads,
            gpu_layers=arguments.gpu_layers,
        )
        engine = Engine(options)
        async with in_nursery() as nursery:
            await nursery.start(engine.run)
            url = str(engine.base_url)
            async with open_target(url, api_key=engine.api_key) as target:
                yield target
            nursery.cancel_scope.cancel()
