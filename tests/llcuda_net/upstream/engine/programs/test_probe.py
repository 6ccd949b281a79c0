"""What a program says of itself: of today's builds and older ones, and of what is none at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.programs import probe
from llcuda_net.upstream.engine.programs.probe import (
    parse_devices,
    parse_help,
    parse_version,
    probe_program,
)
from llcuda_net.upstream.engine.programs.program import Device
from tests.support.llama_server.behaviour import OLDER
from tests.support.llama_server.behaviour import Device as Claimed
from tests.support.llama_server.stand_in import stand_in

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--lora-scaled FNAME:SCALE,...           path to LoRA adapter with user defined scaling
--control-vector-layer-range START END
                                        note: use --control-vector, not --nothing
-np,   --parallel N                     number of server slots
"""


def test_help() -> None:
    assert parse_help(HELP) == {
        "-h": "", "--help": "", "--usage": "",
        "-c": "N", "--ctx-size": "N",
        "-kvo": "", "--kv-offload": "", "-nkvo": "", "--no-kv-offload": "",
        "--lora-scaled": "FNAME:SCALE,...",
        "--control-vector-layer-range": "START END",
        "-np": "N", "--parallel": "N",
    }  # fmt: skip
    assert parse_help("") == {}


@pytest.mark.parametrize(
    ("text", "version", "build"),
    [
        (
            "version: 0.6.0-dev (build 11434, commit 01)\nbuilt with x",
            "0.6.0-dev (build 11434, commit 01)",
            11434,
        ),
        (
            "version: 0.6.0-dev (build 0, commit unknown)",
            "0.6.0-dev (build 0, commit unknown)",
            None,
        ),
        (
            "ggml_cuda_init: found 1\nversion: 5200 (0a1b2c3d)\nbuilt with",
            "5200 (0a1b2c3d)",
            5200,
        ),
        ("ls (GNU coreutils) 9.1", "", None),
    ],
)
def test_version(text: str, version: str, build: int | None) -> None:
    assert parse_version(text) == (version, build)


def test_devices() -> None:
    text = (
        "Available devices:\n"
        "  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)\n"
        "  Vulkan1: AMD Radeon (TM) Graphics (RADV) (32 MiB, 31 MiB free)\n"
    )
    assert parse_devices(text) == (
        Device("CUDA0", "NVIDIA H200", 143771 << 20, 143000 << 20),
        Device("Vulkan1", "AMD Radeon (TM) Graphics (RADV)", 32 << 20, 31 << 20),
    )
    assert parse_devices("Available devices:\n  (none)\n") == ()


async def test_a_llama_server(llama_server_binary: Path) -> None:
    found = await probe_program(llama_server_binary)
    assert found.path == llama_server_binary
    assert not found.builtin
    assert found.version
    assert found.flags >= {"--model", "--kv-unified-per-slot", "--no-ui", "--list-devices"}
    assert found.takes["--flash-attn"] == "[on|off|auto]"
    assert found.devices is not None
    assert found.facts()["engine"] == str(llama_server_binary)


async def test_one_with_a_gpu(tmp_path: Path) -> None:
    found = await probe_program(stand_in(tmp_path, devices=(Claimed(total=100, free=90),)).path)
    assert found.has_gpu
    assert found.build == 11434
    assert found.facts()["devices"] == [
        {
            "name": "CUDA0",
            "description": "NVIDIA H200",
            "memory_total": 100 << 20,
            "memory_free": 90 << 20,
        }
    ]


async def test_one_of_an_older_build(tmp_path: Path) -> None:
    found = await probe_program(stand_in(tmp_path, OLDER).path)
    assert found.build == 5200
    assert not {"--kv-unified", "--fit"} & found.flags
    assert found.takes["--flash-attn"] == ""


async def test_one_that_cannot_list_its_devices(tmp_path: Path) -> None:
    found = await probe_program(stand_in(tmp_path, without=("--list-devices",)).path)
    assert found.devices is None
    assert not found.has_gpu
    assert found.facts()["devices"] is None


async def test_the_builtin_engine() -> None:
    found = await probe_program(None)
    assert found.builtin
    assert found.version.startswith("xllamacpp ")
    assert found.devices is not None
    assert found.facts()["engine"] == "builtin"


async def test_no_wheel_for_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"ImportError: wrong ELF class\).*--engine PATH"):
        await probe_program(None)


async def test_a_wheel_that_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    (tmp_path / "xllamacpp.py").write_text(crash)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"SIGILL .the CPU lacks an instruction"):
        await probe_program(None)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


LINKER = "error while loading shared libraries: libcublas.so.13: cannot open shared object file"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\necho hello\n", "is no llama-server .* --help does not have"),
        ("#!/bin/sh\nexit 3\n", "is no llama-server .* exited with status 3"),
        (f'#!/bin/sh\necho "$0: {LINKER}" >&2\nexit 127\n', f"runs here: {LINKER}"),
        ("#!/bin/sh\nkill -ILL $$\n", "SIGILL .the CPU lacks an instruction"),
        ("#!/nonexistent/loader\n", "a program loader or an interpreter"),
        ("\x7fELF\x02\x01\x01", "cannot be run: Exec format error"),
    ],
)
async def test_what_is_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        await probe_program(script(tmp_path / "llama-server", text))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


async def test_what_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        await probe_program(tmp_path / "absent")
    with pytest.raises(EngineError, match="is a folder: name the file"):
        await probe_program(tmp_path)
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    with pytest.raises(EngineError, match="not executable: chmod"):
        await probe_program(plain)


async def test_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 0.05)
    with pytest.raises(EngineError, match="did not answer within"):
        await probe_program(stand_in(tmp_path, hang="help").path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yes", "prints without end"),
        ("yes >&2", "prints without end"),
        ("wait", "did not answer"),
        ("exit 3", "exited with status 3"),  # what it started has outlived it
    ],
)
async def test_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 2.0 if text == "wait" else 60.0)
    monkeypatch.setattr(probe, "_MOST", 1 << 12)
    pid = tmp_path / "pid"
    begun = f"#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\necho $! > {pid}\n"
    with pytest.raises(EngineError, match=words):
        await probe_program(script(tmp_path / "llama-server", begun + text + "\n"))
    with trio.fail_after(30):
        while _lives(int(pid.read_text())):  # noqa: ASYNC110 - another's process
            await trio.sleep(0.01)


def _lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_variables_of_the_environment_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = "#!/bin/sh\nenv | grep -q LLAMA_ARG_ && exit 3\n"
    helps = "".join(f"echo '{flag} N'\n" for flag in sorted(probe._ALWAYS))
    monkeypatch.setenv("LLAMA_ARG_PORT", "x")
    found = await probe_program(script(tmp_path / "llama-server", fails + helps))
    assert found.flags == probe._ALWAYS
