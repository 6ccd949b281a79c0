"""`llcuda doctor`: what this machine has, its engines, and whether the kernels are right."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.cli.progress import StatusLine
from llcuda_net.cli.tables import fields
from llcuda_net.util.terminal import echo, one_line, paint

if TYPE_CHECKING:
    from llcuda_kernels.selfcheck import Outcome

PROG = "llcuda doctor"
#: Packages that are always installed, and those of the extras.
_PACKAGES = ("llcuda-net", "trio", "msgpack", "httpx", "apsw", "xllamacpp", "numpy", "numba")
_OPTIONAL = ("numba-cuda", "cuda-toolkit", "cupy-cuda13x", "cupy-cuda12x", "mpi4py", "pyarrow")
#: The extras that a user may want, and what wants them.
EXTRAS = {
    "bench": "llcuda bench",
    "cluster": "--store postgresql://…, --processes",
    "cuda12": "kernels on an NVIDIA GPU, drivers before 580",
    "cuda13": "kernels on an NVIDIA GPU, drivers from 580 on",
    "hub": "models of Hugging Face",
    "mpi": "llcuda-mpi and llcuda bench scaling on several ranks",
    "otel": "--otlp-endpoint",
    "parquet": "llcuda results export --format parquet",
    "top": "llcuda top, live",
}

_EPILOG = """\
examples:
  llcuda doctor
  llcuda doctor --backend cpu --json
  llcuda doctor --warm

Engines are what runs models: the built-in one, and each llama-server on PATH, each with the GPUs
that it can use. What to do about a GPU that none of them uses: docs/gpu.md.

Each operation of llcuda_kernels is run on fresh random inputs, with outliers, NaN, infinity and
odd sizes, and compared with its float64 reference: "error" is that of the number that is farthest
off by the error allowed for it, which follows.

A kernel is compiled when it is first used, which takes up to some seconds, and is then kept in the
user's cache directory for all later processes. --warm compiles all kernels for the GPU here and
checks nothing.

exit codes: 0 all is well (a GPU that is not there is no fault, but for --warm), 1 a kernel is wrong
or failed, 2 wrong usage, 130 interrupted
"""


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog=PROG,
        description="Say what this machine has, which engines can run models on it, and check "
        "every kernel against its reference.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--backend", choices=("all", "cpu", "cuda"), default="all", help="what to check"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the inputs (default: fresh)")
    parser.add_argument(
        "--warm", action="store_true", help="compile all kernels for the GPU here, and keep them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = make_parser().parse_args(argv)
    if arguments.seed is not None and arguments.seed < 0:
        fail(f"--seed must be 0 or more, not {arguments.seed}")
    if arguments.warm and (arguments.backend != "all" or arguments.seed is not None):
        fail("--warm checks nothing: leave --backend and --seed out")
    facts = machine()
    if arguments.warm:
        if not facts["gpu"]["usable"]:
            fail(f"the GPU is not used: {facts['gpu']['reason']}", Exit.REFUSED)
        return _warm(as_json=arguments.json)
    found = engines()
    if arguments.json:
        echo(json.dumps({"event": "machine", **facts}), flush=True)
        echo(json.dumps({"event": "engines", **found}), flush=True)
    else:
        _print_facts(facts)
        _print_engines(found)
    backends = ["cpu", "cuda"] if arguments.backend == "all" else [arguments.backend]
    wrong = 0
    for backend in backends:
        usable = backend == "cpu" or facts["gpu"]["usable"]
        if usable:
            wrong += _check(backend, arguments.seed, as_json=arguments.json)
        elif arguments.backend == "cuda":
            fail(f"the GPU is not used: {facts['gpu']['reason']}", Exit.REFUSED)
        elif not arguments.json:
            echo(f"\nkernels on the GPU: not run: {facts['gpu']['reason']}")
    if not arguments.json:
        echo(f"\n{wrong} of the kernels are wrong" if wrong else "\nall is well")
    return Exit.REFUSED if wrong else Exit.OK


def machine() -> dict[str, Any]:
    """What the machine has, in JSON's types."""
    from dataclasses import asdict

    import apsw

    from llcuda_kernels.runtime.device import gpu
    from llcuda_kernels.runtime.kept import kept

    found = asdict(gpu())
    found["compute_capability"] = ".".join(map(str, found["compute_capability"]))
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": _memory(),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "packages": {name: _version(name) for name in (*_PACKAGES, *_OPTIONAL)},
        "missing": [name for name in _distributions("") if _version(name) is None],
        "extras": {name: _extra(name) for name in EXTRAS},
        "gpu": {**found, "kernel_module": _kernel_module()},
        "compiled_kernels": asdict(kept()),
    }


def engines() -> dict[str, Any]:
    """What can run models here, in JSON's types, and the GPUs that there are for it."""
    from dataclasses import asdict

    from llcuda_net.cli.run_async import run_async
    from llcuda_net.upstream.engine.programs.choice import REMEDY
    from llcuda_net.upstream.engine.programs.gpus import find_gpus
    from llcuda_net.upstream.engine.programs.probe import survey

    programs = run_async(survey)
    gpus = find_gpus()
    used = any(
        program.has_gpu or (program.devices is None and not program.unusable)
        for program in programs
    )
    return {
        "engines": [program.facts() for program in programs],
        "gpus": asdict(gpus),
        "advice": REMEDY if gpus.nvidia and not gpus.hidden and not used else "",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory() -> int | None:
    """Bytes; None where the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra(name: str) -> dict[str, Any]:
    """What of an extra is here, in JSON's types."""
    found = {one: _version(one) for one in _distributions(name)}
    return {
        "for": EXTRAS[name],
        "installed": {one: number for one, number in found.items() if number},
        "missing": [one for one, number in found.items() if not number],
        "install": f"pip install 'llcuda-net[{name}]'",
    }


def _distributions(extra: str) -> list[str]:
    """What an extra brings, by name; of "", what is always installed."""
    found = []
    for line in (requires("llcuda-net") if _version("llcuda-net") else None) or ():
        requirement, _, marker = line.partition(";")
        of = re.search(r"extra == ['\"]([\w-]+)", marker)
        if (of[1] if of else "") == extra and not _of_another_python(marker):
            found.append(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])
    return found


def _of_another_python(marker: str) -> bool:
    """Of the markers of core, setup.cfg has this one: `python_version < "3.14"`."""
    limit = re.search(r"python_version < ['\"](\d+)\.(\d+)", marker)
    return limit is not None and sys.version_info[:2] >= (int(limit[1]), int(limit[2]))


def _kernel_module() -> str | None:
    """The version of NVIDIA's kernel module, also where its library is missing."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None
    return next((word for word in first.split() if word[0].isdigit()), None)


def _print_facts(facts: dict[str, Any]) -> None:
    memory = facts["memory"]
    size = f", {memory / 2**30:.1f} GiB memory" if memory else ""
    packages = facts["packages"]
    rows = [
        ("system", facts["system"]),
        ("processor", f"{facts['processor']}, {facts['cores']} cores{size}"),
        ("python", f"{facts['python']}, SQLite {facts['sqlite']}"),
        ("packages", ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages[name])),
        *_missing_lines(facts["missing"]),
        *_extra_lines(facts["extras"]),
        ("GPU", _gpu_line(facts["gpu"])),
        ("kernels", _kept_line(facts["compiled_kernels"])),
    ]
    _print_fields(rows)
    sys.stdout.flush()


def _missing_lines(names: list[str]) -> list[tuple[str, str]]:
    listed = " ".join(names)
    return [("missing", f"{', '.join(names)}: pip install {listed}")] if names else []


def _extra_lines(extras: dict[str, Any]) -> list[tuple[str, str]]:
    """A line for each extra."""
    lines: list[tuple[str, str]] = []
    for name, found in extras.items():
        here = ", ".join(f"{one} {number}" for one, number in found["installed"].items())
        if found["missing"]:
            without = f"without {', '.join(found['missing'])}" if here else "not installed"
            here = f"{without}; for {found['for']}: {found['install']}"
        lines.append(("" if lines else "extras", f"{name}: {here}"))
    return lines


def _print_engines(found: dict[str, Any]) -> None:
    said = [_engine_line(one) for one in found["engines"]]
    gpus = found["gpus"]
    if gpus["nvidia"]:
        hidden = ", hidden by CUDA_VISIBLE_DEVICES" if gpus["hidden"] else ""
        said.append(f"for them: {', '.join(gpus['nvidia'])}{hidden}")
    if found["advice"]:
        said.append(f"no engine uses that: {found['advice']}")
    _print_fields([("" if number else "engines", text) for number, text in enumerate(said)])


def _print_fields(rows: Iterable[tuple[str, str]]) -> None:
    for line in fields(rows, "", least=len("processor")):
        echo(line)
    sys.stdout.flush()


def _engine_line(engine: dict[str, Any]) -> str:
    name = {"builtin": "built-in"}.get(engine["engine"], engine["engine"])
    if "unusable" in engine:
        why = one_line(engine["unusable"])
        return why if name in why else f"{name}: does not run here: {why}"
    devices = engine["devices"]
    if devices is None:
        where = "its GPUs are not known: it has no --list-devices"
    elif not devices:
        where = "no GPU, the CPU only"
    else:
        where = ", ".join(
            f"{one['name']} ({one['description']}, {one['memory_free'] / 2**30:.1f} of "
            f"{one['memory_total'] / 2**30:.1f} GiB free)"
            for one in devices
        )
    return f"{name}: {one_line(engine['version']) or 'of no known version'}; {where}"


def _gpu_line(gpu: dict[str, Any]) -> str:
    if not gpu["usable"]:
        module = gpu["kernel_module"]
        return f"not used: {gpu['reason']}" + (f" (kernel module {module})" if module else "")
    return (
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, "
        f"{gpu['multiprocessors']} multiprocessors, {gpu['memory'] / 2**30:.0f} GiB, "
        f"driver {gpu['driver']}, runtime {gpu['runtime']}"
    )


def _kept_line(kept: dict[str, Any]) -> str:
    if not kept["kernels"]:
        return f"none is compiled for a GPU yet; they are kept in {kept['folder']}"
    size = f"{kept['bytes'] / 2**20:.1f} MiB"
    return f"{kept['kernels']} compiled for GPUs, {size}, kept in {kept['folder']}"


def _warm(*, as_json: bool) -> int:
    """Compile what is not kept yet; whether all of it did."""
    from dataclasses import asdict

    from llcuda_kernels.runtime import kept

    with StatusLine(wanted=not as_json) as status:
        status.show("compiling")
        warmed = kept.warm(
            lambda name, done, wanted: status.show(f"compiled {done} of {wanted}: {name}")
        )
    facts = asdict(kept.kept())
    if as_json:
        echo(json.dumps({"event": "warm", **asdict(warmed), "compiled_kernels": facts}))
    else:
        for name, reason in warmed.failed.items():
            echo(f"{name}: {one_line(reason)}")
        echo(
            f"{warmed.compiled} kernels compiled in {warmed.seconds:.1f} s, {warmed.already} were "
            f"there already: {_kept_line(facts)}"
        )
    return Exit.REFUSED if warmed.failed else Exit.OK


def _check(backend: str, seed: int | None, *, as_json: bool) -> int:
    """Run every check on a backend; how many failed."""
    from llcuda_kernels import selfcheck

    if not as_json:
        where = {"cpu": "the CPU", "cuda": "the GPU"}[backend]
        echo(f"\nkernels on {where}, each against its float64 reference:", flush=True)
    wrong = 0
    names = list(selfcheck.names())
    wide = max(map(len, names), default=0)
    with StatusLine(wanted=not as_json) as status:
        for name in names:
            status.show(f"  ...  {name}")
            outcome = selfcheck.run(name, backend, seed)  # type: ignore[arg-type]
            status.erase()
            wrong += not outcome.passed
            echo(_json(outcome) if as_json else _line(outcome, wide), flush=True, styled=True)
    return wrong


def _json(outcome: Outcome) -> str:
    from dataclasses import asdict
    from math import isfinite

    found = {"event": "kernel", **asdict(outcome)}
    for name in ("miss", "error", "allowed"):
        if found[name] is not None and not isfinite(found[name]):
            found[name] = None
    return json.dumps(found)


def _line(outcome: Outcome, wide: int) -> str:
    if outcome.passed:
        mark = paint("ok   ", "32", sys.stdout)
        return f"  {mark} {outcome.name:<{wide}}  {_error(outcome):<38} {outcome.seconds:6.2f} s"
    mark = paint("WRONG", "31", sys.stdout)
    measured = "" if outcome.error is None else f": {_error(outcome)}"
    return f"  {mark} {outcome.name:<{wide}}  {one_line(outcome.reason)}{measured}"


def _error(outcome: Outcome) -> str:
    """The error and the tolerance that it was compared with."""
    if outcome.error is None or outcome.allowed is None:
        return "equal" if outcome.miss == 0 else f"error {outcome.miss:.3g} of what is allowed"
    return f"error {outcome.error:.4g}, allowed {outcome.allowed:.4g}"


if __name__ == "__main__":
    sys.exit(main())
