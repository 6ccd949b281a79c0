"""Imports run one way, and what a command does not need it does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import MODULES

ROOT = Path(__file__).resolve().parent.parent

#: llcuda_net from the ground up. A package imports the rows above its own in this list, and nothing
#: of its own row; modules of one package may import each other, without circles.
ORDER = [
    ("errors", "data", "page"),
    ("util",),
    ("config", "storage"),
    ("cluster",),
    ("upstream", "scheduler", "client"),
    ("models",),
    ("sync",),
    ("generation", "batch"),
    ("analysis", "telemetry", "bench"),
    ("server",),
    ("cli",),
]
#: Most modules in a package.
MOST_MODULES = 12
#: The protocol core does no I/O, reads no clock and knows no event loop.
PROTOCOL_MAY_IMPORT = {
    "llcuda_protocol",
    "__future__",
    "collections",
    "dataclasses",
    "difflib",
    "enum",
    "itertools",
    "math",
    "msgpack",
    "re",
    "struct",
    "typing",
}


def _modules(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        yield ".".join(p for p in parts if p != "__init__"), path


def _imports(path: Path, module: str) -> Iterator[str]:
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _row(name: str) -> int:
    """The row of a module's package in ORDER."""
    package = name.split(".")[1]
    for number, row in enumerate(ORDER):
        if package in row:
            return number
    raise AssertionError(f"{name} has no place: add its package to ORDER")


def _graph(folder: Path, package: str) -> dict[str, set[str]]:
    """Which modules of a package each of its modules imports, those for typing included."""
    known = dict(_modules(folder, package))
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        found = graph.setdefault(module, set())
        for name in _imports(path, module):
            while name not in known and "." in name:
                name = name.rpartition(".")[0]
            if name in known and name != module:
                found.add(name)
    return graph


def _circles(graph: dict[str, set[str]]) -> list[str]:
    """What is left of a graph once all that leads nowhere has been taken away, again and again."""
    left = {module: set(found) for module, found in graph.items()}
    while ends := {module for module, found in left.items() if not found & left.keys()}:
        left = {module: found for module, found in left.items() if module not in ends}
    return sorted(f"{m} -> {', '.join(sorted(f & left.keys()))}" for m, f in left.items())


def test_imports_of_llcuda_net_run_down_only() -> None:
    wrong = []
    for module, found in _graph(ROOT / "llcuda_net", "llcuda_net").items():
        if module == "llcuda_net":
            continue  # the public names, from wherever they are
        for name in found - {"llcuda_net"}:
            same = module.split(".")[1] == name.split(".")[1]
            if not same and _row(name) >= _row(module):
                wrong.append(f"{module} imports {name}")
    assert not sorted(wrong)


@pytest.mark.parametrize(
    ("folder", "package"),
    [
        ("llcuda_net", "llcuda_net"),
        ("protocol/llcuda_protocol", "llcuda_protocol"),
        ("kernels/llcuda_kernels", "llcuda_kernels"),
    ],
)
def test_no_circle_of_imports(folder: str, package: str) -> None:
    graph = _graph(ROOT / folder, package)
    # A package's own __init__ stands for its public names: those above it may use them.
    assert not _circles(graph)


def _packages() -> Iterator[Path]:
    for top in ("llcuda_net", "protocol/llcuda_protocol"):
        yield ROOT / top
        yield from (ROOT / top).rglob("*/")


def test_packages_are_small_and_say_what_they_are() -> None:
    for folder in _packages():
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if not modules:
            continue
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{folder} has no docstring"
        assert len(modules) <= MOST_MODULES, f"{folder} has {len(modules)} modules"


def test_the_protocol_imports_nothing_that_does_io() -> None:
    wrong = []
    for module, path in _modules(ROOT / "protocol/llcuda_protocol", "llcuda_protocol"):
        for name in _imports(path, module):
            if name.split(".")[0] not in PROTOCOL_MAY_IMPORT:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_the_kernels_know_neither_network_nor_protocol() -> None:
    wrong = []
    for module, path in _modules(ROOT / "kernels/llcuda_kernels", "llcuda_kernels"):
        for name in _imports(path, module):
            if name.split(".")[0] in {"llcuda_net", "llcuda_protocol", "trio", "socket", "sqlite3"}:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_one_module_imports_numba_cuda() -> None:
    folder = ROOT / "kernels/llcuda_kernels"
    found = {
        module
        for module, path in _modules(folder, "llcuda_kernels")
        for name in _imports(path, module)
        if name.startswith(("numba.cuda", "numba_cuda", "cuda."))
    }
    assert found <= {"llcuda_kernels.cuda.runtime.shim"}


def test_the_kernels_are_imported_without_numba() -> None:
    code = "import sys, llcuda_kernels as k; k.gpu; k.BackendError; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert not {"numba", "trio"} & set(done.stdout.split())


def test_component_folders_are_no_packages() -> None:
    assert not (ROOT / "protocol/__init__.py").exists()
    assert not (ROOT / "kernels/__init__.py").exists()


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("client", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "xllamacpp"}),
        ("server", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "xllamacpp"}),
        ("mpi", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "mpi4py"}),
        ("batch", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "xllamacpp"}),
        ("infer", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "xllamacpp"}),
        ("main", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "apsw"}),
        ("top", {"trio", "httpx", "msgspec", "structlog", "numba", "numpy", "textual", "rich"}),
    ],
)
def test_help_imports_nothing_heavy(command: str, heavy: set[str]) -> None:
    code = (
        "import sys, contextlib, io\n"
        f"from {MODULES[command]} import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert not heavy & set(done.stdout.split())


def test_only_what_prints_imports_rich_and_only_the_live_screen_textual() -> None:
    found: dict[str, set[str]] = {"textual": set(), "rich": set()}
    at_once = set()
    for module, path in _modules(ROOT / "llcuda_net", "llcuda_net"):
        for name in _imports(path, module):
            if (package := name.split(".")[0]) in found:
                found[package].add(module)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                at_once.add(module)
    assert found["textual"] == at_once == {"llcuda_net.cli.top.app"}
    printing = {"llcuda_net.cli.progress", "llcuda_net.cli.tables", "llcuda_net.cli.top.app"}
    printing |= {"llcuda_net.cli.chat.screen.markdown"}
    assert found["rich"] == printing


def test_the_server_itself_needs_no_engine_and_no_numba() -> None:
    code = "import sys, llcuda_net.server.app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert not {"xllamacpp", "numba", "numpy", "opentelemetry"} & set(done.stdout.split())


def test_a_server_without_a_cluster_imports_nothing_for_one(tmp_path: Path) -> None:
    # None of its two halves: neither what reads other servers, nor what writes to a database.
    options = ["--port", "0", "--data-dir", str(tmp_path), "--upstream", "http://127.0.0.1:1"]
    code = (
        "import sys\n"
        f"from {MODULES['server']} import main\n"
        f"code = main({options})\n"
        "print(*sys.modules)\n"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it serves
        process.terminate()
        found = process.stdout.read().split()
        assert process.wait() == 0
    assert "llcuda_net.storage.results.sqlite" in found
    inside = ("llcuda_net.cluster", "llcuda_net.server.cluster", "llcuda_net.storage.postgres")
    needed = {
        *("llcuda_net.server.cluster", "llcuda_net.server.cluster.opening"),
        *("llcuda_net.storage.postgres", "llcuda_net.storage.postgres.opening"),
    }
    assert {one for one in found if one.startswith(inside)} == needed
    assert not {"psycopg", "llcuda_net.client.client", "llcuda_net.client.connection"} & {*found}
