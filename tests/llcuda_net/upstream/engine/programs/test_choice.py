"""Which program runs models, and what is said of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.programs.choice import Choice, choose_program
from llcuda_net.upstream.engine.programs.gpus import Gpus
from llcuda_net.upstream.engine.programs.program import Device, Program
from tests.support.llama_server.stand_in import stand_in

FOUND = Path("/usr/bin/llama-server")
CUDA = (Device("CUDA0", "NVIDIA H200", 2, 1),)
NVIDIA = Gpus(nvidia=("NVIDIA H200",))
NONE = Gpus()


class Machine:
    """Programs that answer, and which of them were asked."""

    def __init__(
        self,
        own: tuple[Device, ...] | None = (),
        other: tuple[Device, ...] | str | None = None,
        *,
        gpus: Gpus = NONE,
        installed: bool = True,
    ) -> None:
        self.own, self.other = own, other
        self.gpus, self.installed = gpus, installed
        self.asked: list[Path | None] = []

    async def probe(self, path: Path | None) -> Program:
        self.asked.append(path)
        if path is None:
            if self.own is None:
                raise EngineError("the built-in engine cannot run")
            return Program(None, devices=self.own)
        if isinstance(self.other, str):
            raise EngineError(self.other)
        return Program(path, devices=self.other)

    async def choose(
        self, setting: str = "auto", *, layers: int | None = None, options: bool = False
    ) -> Choice:
        return await choose_program(
            setting,
            gpu_layers=layers,
            options=options,
            gpus=self.gpus,
            on_path=lambda: FOUND if self.installed else None,
            probe=self.probe,
        )


async def test_the_builtin_engine_where_there_is_nothing_else() -> None:
    machine = Machine(installed=False)
    choice = await machine.choose()
    assert choice.program.builtin
    assert choice.program.devices == ()
    assert choice.program.version.startswith("xllamacpp 2")
    assert choice.why == "there is no llama-server on PATH"
    assert choice.warnings == ()
    assert (await machine.choose("builtin")).program == choice.program
    assert machine.asked == []  # without a GPU there is nothing to ask it


async def test_without_a_gpu_a_llama_server_is_not_even_asked() -> None:
    machine = Machine(other=())
    choice = await machine.choose()
    assert choice.program.builtin
    assert "no GPU here" in choice.why
    assert machine.asked == [None]


async def test_a_llama_server_that_can_use_the_gpu() -> None:
    choice = await Machine(other=CUDA, gpus=NVIDIA).choose()
    assert choice.program.path == FOUND
    assert choice.why == "it can use CUDA0 (NVIDIA H200), which the built-in engine cannot"
    assert choice.warnings == ()


async def test_a_builtin_engine_that_can_use_the_gpu() -> None:
    choice = await Machine(own=CUDA, other=CUDA, gpus=NVIDIA).choose()
    assert choice.program.builtin
    assert choice.why == "it can use CUDA0 (NVIDIA H200)"
    assert choice.warnings == ()


@pytest.mark.parametrize("installed", [False, True])
async def test_a_gpu_that_nothing_uses_is_said(installed: bool) -> None:
    choice = await Machine(other=(), gpus=NVIDIA, installed=installed).choose()
    assert choice.program.builtin
    (warning,) = choice.warnings
    assert warning.startswith("NVIDIA H200 is not used: the built-in engine cannot; install")
    assert "docs/gpu.md" in warning


async def test_unless_it_is_not_to_be_used() -> None:
    machine = Machine(other=CUDA, gpus=NVIDIA)
    choice = await machine.choose(layers=0)
    assert choice.program.builtin
    assert (choice.why, choice.warnings) == ("no GPU is to be used", ())
    machine = Machine(other=CUDA, gpus=Gpus(nvidia=("NVIDIA H200",), hidden=True))
    choice = await machine.choose()
    assert choice.program.builtin
    assert choice.warnings == ()


async def test_a_named_one_that_cannot_use_the_gpu() -> None:
    choice = await Machine(own=CUDA, other=(), gpus=NVIDIA).choose(str(FOUND))
    assert choice.program.path == FOUND
    assert choice.why == "it was named by --engine"
    assert f"NVIDIA H200 is not used: {FOUND} cannot" in choice.warnings[0]
    choice = await Machine(own=(), other=CUDA, gpus=NVIDIA).choose("builtin")
    assert choice.program.builtin
    assert "NVIDIA H200 is not used" in choice.warnings[0]


async def test_what_is_not_known_is_not_warned_of() -> None:
    choice = await Machine(other=None, gpus=NVIDIA).choose(str(FOUND), layers=9)
    assert choice.warnings == ()


async def test_where_the_builtin_engine_does_not_run() -> None:
    choice = await Machine(own=None, other=()).choose()
    assert choice.program.path == FOUND
    assert choice.why == "the built-in engine cannot run on this machine"
    with pytest.raises(EngineError, match="the built-in engine cannot run"):
        await Machine(own=None, installed=False, gpus=NVIDIA).choose()
    with pytest.raises(EngineError, match="cannot run; neither can this"):
        await Machine(own=None, other="neither can this").choose()


async def test_a_llama_server_that_does_not_run() -> None:
    choice = await Machine(other="no libcuda", gpus=NVIDIA).choose()
    assert choice.program.builtin
    assert choice.why == f"{FOUND} does not run here"
    assert choice.warnings[0] == "no libcuda"
    assert "NVIDIA H200 is not used" in choice.warnings[1]


async def test_options_need_a_llama_server() -> None:
    choice = await Machine(other=()).choose(options=True)
    assert choice.program.path == FOUND
    assert choice.why == "there are options behind -- for it"
    with pytest.raises(EngineError, match=r"--engine PATH .llama-server is not on PATH"):
        await Machine(installed=False).choose(options=True)
    with pytest.raises(EngineError, match=r"--engine PATH$"):
        await Machine().choose("builtin", options=True)
    with pytest.raises(EngineError, match="no libcuda"):
        await Machine(other="no libcuda").choose(options=True)


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (NONE, "this machine has none that is known.: leave --gpu-layers out"),
        (NVIDIA, "this machine has an NVIDIA H200.: install a llama-server .*docs/gpu.md"),
        (
            Gpus(nvidia=("NVIDIA H200",), hidden=True),
            "which CUDA_VISIBLE_DEVICES hides.: leave --gpu-layers out",
        ),
    ],
)
async def test_layers_for_a_gpu_that_is_not_there(gpus: Gpus, words: str) -> None:
    for setting in ("auto", "builtin", str(FOUND)):
        with pytest.raises(EngineError, match=f"--gpu-layers 9, and .* finds no GPU .*{words}"):
            await Machine(other=(), gpus=gpus).choose(setting, layers=9)
    await Machine(own=CUDA, gpus=gpus).choose("builtin", layers=9)


async def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand_in(tmp_path).path
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = Machine(other=())
    assert (await machine.choose("llama-server")).program.path == made
    monkeypatch.chdir(tmp_path)
    assert (await machine.choose("./llama-server")).program.path == made
    with pytest.raises(EngineError, match="--engine llama-sever is neither auto, builtin, a file"):
        await machine.choose("llama-sever")
