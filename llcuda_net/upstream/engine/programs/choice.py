"""Which program runs the models of this server: the one that is named, or the better one here.

`auto` takes the built-in engine, which needs nothing, unless a llama-server on PATH can do what it
cannot: use a GPU of this machine, run at all, or take options of llama.cpp's command line.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.programs.gpus import Gpus, find_gpus
from llcuda_net.upstream.engine.programs.probe import (
    NAME,
    builtin_without_gpu,
    find_llama_server,
    probe_program,
)
from llcuda_net.upstream.engine.programs.program import BUILTIN, Program

AUTO = "auto"
#: Where it is written what to do about a GPU that is not used.
REMEDY = (
    "install a llama-server that can (docs/gpu.md says which), and have it on PATH or name it "
    "with --engine PATH"
)
_NONE_ON_PATH = f"there is no {NAME} on PATH"


@dataclass(frozen=True, slots=True)
class Choice:
    """The program that was chosen.

    Attributes:
        program: that one.
        why: on one line, for the log.
        warnings: what the user should know, each on one line that says what to do.
    """

    program: Program
    why: str
    warnings: tuple[str, ...] = ()


async def choose_program(
    setting: str = AUTO,
    *,
    gpu_layers: int | None = None,
    options: bool = False,
    gpus: Gpus | None = None,
    on_path: Callable[[], Path | None] = find_llama_server,
    probe: Callable[[Path | None], Awaitable[Program]] = probe_program,
) -> Choice:
    """Choose a program.

    Args:
        setting: auto, builtin, the path of a llama-server, or its name on PATH.
        gpu_layers: the most that any model is to have on a GPU; None: as many as fit.
        options: whether there are any for a llama-server's command line.
        gpus: of this machine; None: look.
        on_path: finds a llama-server.
        probe: asks a program what it is.

    Raises:
        EngineError: the program does not run here, or it cannot do what is asked; one line.
    """
    if gpus is None:
        gpus = find_gpus()
    plain = not gpus.any and not gpu_layers  # nothing to ask the built-in engine
    if setting == AUTO:
        found = on_path()
        if found is None and plain:
            choice = Choice(builtin_without_gpu(), _NONE_ON_PATH)
        else:
            choice = await _auto(gpus, found, probe, gpu_layers, options=options)
    elif setting == BUILTIN:
        own = builtin_without_gpu() if plain else await probe(None)
        choice = Choice(own, "it was asked for by --engine builtin")
    else:
        choice = Choice(await probe(_path(setting)), "it was named by --engine")
    program = choice.program
    if program.builtin and options:
        raise EngineError(
            "options behind -- are for a llama-server: name one with --engine PATH"
            + (f" ({NAME} is not on PATH)" if setting == AUTO else "")
        )
    _check_layers(program, gpus, gpu_layers)
    return Choice(program, choice.why, (*choice.warnings, *_unused(program, gpus, gpu_layers)))


async def _auto(
    gpus: Gpus,
    found: Path | None,
    probe: Callable[[Path | None], Awaitable[Program]],
    gpu_layers: int | None,
    *,
    options: bool,
) -> Choice:
    """The built-in engine, unless a llama-server on PATH is of more use."""
    own: Program | None = None
    unusable = ""
    try:
        own = await probe(None)
    except EngineError as error:
        if found is None:
            raise
        unusable = str(error)
    if found is None:
        assert own is not None
        return Choice(own, _NONE_ON_PATH)
    wants_gpu = gpu_layers != 0 and gpus.any and not (own is not None and own.has_gpu)
    if own is not None and not wants_gpu and not options:
        why = "no GPU is to be used" if gpu_layers == 0 else f"{found} has no advantage here"
        if own.has_gpu:
            why = f"it can use {_names(own)}"
        elif not gpus.any and gpu_layers != 0:
            why = f"there is no GPU here for {found} to use"
        return Choice(own, why)
    try:
        other = await probe(found)
    except EngineError as error:
        if own is None:
            raise EngineError(f"{unusable}; {error}") from None
        if options:
            raise
        return Choice(own, f"{found} does not run here", (str(error),))
    if own is None:
        return Choice(other, "the built-in engine cannot run on this machine", (unusable,))
    if options:
        return Choice(other, "there are options behind -- for it")
    if other.has_gpu:
        return Choice(other, f"it can use {_names(other)}, which the built-in engine cannot")
    return Choice(own, f"neither it nor {found} can use a GPU here")


def _path(setting: str) -> Path:
    path = Path(setting).expanduser()
    if path.name == setting and not path.exists():
        on_path = shutil.which(setting)
        if on_path is None:
            raise EngineError(
                f"--engine {setting} is neither {AUTO}, {BUILTIN}, a file here, nor a program on "
                "PATH"
            )
        return Path(on_path).absolute()
    return path.absolute()


def _check_layers(program: Program, gpus: Gpus, gpu_layers: int | None) -> None:
    if not gpu_layers or program.devices is None or program.has_gpu:
        return
    there = "this machine has none that is known"
    if gpus.nvidia:
        there = f"this machine has an {gpus.nvidia[0]}"
        if gpus.hidden:
            there += ", which CUDA_VISIBLE_DEVICES hides"
    remedy = REMEDY if gpus.any else "leave --gpu-layers out"
    raise EngineError(
        f"--gpu-layers {gpu_layers}, and {program.name} finds no GPU ({there}): {remedy}"
    )


def _unused(program: Program, gpus: Gpus, gpu_layers: int | None) -> tuple[str, ...]:
    if not gpus.nvidia or gpus.hidden or gpu_layers == 0:
        return ()
    if program.devices is None or program.has_gpu:
        return ()
    return (f"{gpus.nvidia[0]} is not used: {program.name} cannot; {REMEDY}",)


def _names(program: Program) -> str:
    devices = program.devices or ()
    return ", ".join(f"{device.name} ({device.description})" for device in devices)
