"""What a program can do: asked of itself, in a process of its own that may crash or hang."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import trio

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.programs.program import Device, Program, remedy_of

#: Seconds for an answer. The first start of a CUDA program may compile its kernels.
TIMEOUT = 60.0
NAME = "llama-server"
#: Bytes of an answer; --help has a tenth of it.
_MOST = 1 << 20

_CHILD = Path(__file__).parents[1] / "child.py"
#: What a llama-server of any age has, and hardly anything else together.
_ALWAYS = frozenset({"--model", "--parallel", "--ctx-size", "--port"})
#: Where --help describes an option: its names, at the beginning of a line, and what it takes.
_HEAD = re.compile(r"^(--?[a-zA-Z][\w.-]*(?:,\s+--?[\w.-]+)*)(?: (\S+(?: \S+)*))?", re.MULTILINE)
_DEVICE = re.compile(r"^\s+(\S+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)
_BUILD = re.compile(r"\(build (\d+)")
_OLD_BUILD = re.compile(r"(\d+) \(")


def find_llama_server() -> Path | None:
    """The llama-server on PATH, if there is one."""
    found = shutil.which(NAME)
    return Path(found).absolute() if found else None


def builtin_without_gpu() -> Program:
    """The built-in engine where there is no GPU for it to find: that needs no process."""
    return Program(None, f"xllamacpp {_wheel()}", devices=())


def find_all_llama_servers() -> list[Path]:
    """Each llama-server on PATH, in its order; the same file by two ways counts once."""
    found: dict[Path, Path] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = shutil.which(NAME, path=folder) if folder else None
        if path is not None:
            found.setdefault(Path(path).resolve(), Path(path).absolute())
    return list(found.values())


async def survey() -> list[Program]:
    """All programs here: the built-in engine, then each llama-server on PATH.

    Those that do not run are among them, with the reason.
    """
    programs = [await _probe_builtin()]
    for path in await trio.to_thread.run_sync(find_all_llama_servers):
        try:
            programs.append(await probe_program(path))
        except EngineError as error:
            programs.append(Program(path, unusable=str(error)))
    return programs


async def probe_program(path: Path | None) -> Program:
    """Ask a llama-server, or the built-in engine (None), what it is.

    Raises:
        EngineError: that is no llama-server, or it does not run here; one line.
    """
    if path is None:
        program = await _probe_builtin()
        if program.unusable:
            raise EngineError(
                "the built-in engine cannot run on this machine"
                f" ({program.unusable}); {remedy_of(program.unusable)}"
            )
        return program
    return await _probe_binary(path)


async def _probe_builtin() -> Program:
    try:
        done = await _ask([sys.executable, "-P", str(_CHILD), "probe"])
    except (OSError, trio.TooSlowError) as error:
        return Program(None, unusable=_why(error))
    lines = done.stdout.splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = {}
    if done.returncode or "error" in found or not found:
        why = found.get("error") or _last_line(done)
        return Program(None, version=_wheel(), unusable=why)
    return Program(
        None,
        version=f"xllamacpp {_wheel()}",
        build=found["build"],
        devices=tuple(Device(**device) for device in found["devices"]),
    )


async def _probe_binary(path: Path) -> Program:
    shown = str(path) if str(path).isprintable() else repr(str(path))
    kind = await trio.to_thread.run_sync(_kind, path)
    if kind == "folder":
        raise EngineError(f"--engine {shown} is a folder: name the file, such as {path / NAME}")
    try:
        helped = await _ask([str(path), "--help"])
        takes = parse_help(helped.stdout)
        if helped.returncode or not takes.keys() >= _ALWAYS:
            why = "its --help does not have --model, --parallel and --port"
            if helped.returncode:
                why = _last_line(helped).removeprefix(f"{path}: ")
            raise EngineError(f"{shown} is no llama-server that runs here: {why}")
        named = await _ask([str(path), "--version"])
        devices = None
        if "--list-devices" in takes:
            listed = await _ask([str(path), "--list-devices"])
            if not listed.returncode:
                devices = parse_devices(listed.stdout)
    except FileNotFoundError:
        # A missing loader reads the same, for a file that is there.
        why = "it does not exist"
        if kind:
            why = "it needs a program loader or an interpreter that this machine does not have"
        raise EngineError(f"--engine {shown}: {why}") from None
    except PermissionError:
        raise EngineError(f"--engine {shown} is not executable: chmod +x it") from None
    except (OSError, trio.TooSlowError) as error:
        raise EngineError(f"--engine {shown} cannot be run: {_why(error)}") from None
    text, build = parse_version(named.stdout + "\n" + named.stderr)
    return Program(path, text, build, takes, devices)


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file" if path.exists() else ""


def parse_version(text: str) -> tuple[str, int | None]:
    """What `--version` prints: the version, and the number of the build where there is one."""
    line = next((one for one in text.splitlines() if one.startswith("version: ")), "")
    name = line.removeprefix("version: ").strip()
    found = _BUILD.search(name) or _OLD_BUILD.match(name)
    return name, int(found[1]) or None if found else None


def parse_devices(text: str) -> tuple[Device, ...]:
    """What `--list-devices` prints."""
    return tuple(
        Device(name, description, int(total) << 20, int(free) << 20)
        for name, description, total, free in _DEVICE.findall(text)
    )


def parse_help(text: str) -> dict[str, str]:
    """The options that `--help` describes, each with what stands behind it there."""
    return {
        flag: behind for names, behind in _HEAD.findall(text) for flag in re.split(r",\s+", names)
    }


async def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        OSError: it cannot be run, or prints without end.
        trio.TooSlowError: it takes too long, and was killed with all that it had started.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    said, complained = bytearray(), bytearray()
    try:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                for stream, into in ((process.stdout, said), (process.stderr, complained)):
                    assert stream is not None
                    nursery.start_soon(_read, stream, into, nursery.cancel_scope)
            if max(len(said), len(complained)) > _MOST:
                raise OSError(errno.EFBIG, "it prints without end")
            await process.wait()
    finally:
        await _end(process)
    return subprocess.CompletedProcess(
        command,
        process.returncode or 0,
        said.decode("utf-8", "replace"),
        complained.decode("utf-8", "replace"),
    )


async def _read(stream: trio.abc.ReceiveStream, into: bytearray, scope: trio.CancelScope) -> None:
    """Add what comes to `into`; cancel `scope` when that is more than can be meant."""
    async with stream:
        async for data in stream:
            into += data
            if len(into) > _MOST:
                scope.cancel()


async def _end(process: trio.Process) -> None:
    """Kill what is left of it, and all that it had started: that may outlive it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    with trio.CancelScope(shield=True):
        await process.wait()


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    text = lines[-1] if lines else _ending(done.returncode)
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def _ending(code: int) -> str:
    if code >= 0:
        return f"it exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (the CPU lacks an instruction)" if name == "SIGILL" else ""
    return f"it was ended by {name}{hint}"


def _why(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"it did not answer within {TIMEOUT:.0f} s"
    return getattr(error, "strerror", None) or str(error)


def _wheel() -> str:
    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return ""
