"""Imports run one way, and what a command does not need it does not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: llcuda_net from the bottom up: a module imports its own row and the rows above it in this list.
LAYERS = [
    {"llcuda_net.errors", "llcuda_net.data", "llcuda_net.terminal", "llcuda_net.http_answer"},
    {"llcuda_net.world"},
    {"llcuda_net.address", "llcuda_net.params", "llcuda_net.specs", "llcuda_net.logs"},
    {"llcuda_net.settings", "llcuda_net.users", "llcuda_net.files", "llcuda_net.version"},
    {"llcuda_net.upstream", "llcuda_net.storage"},
    {"llcuda_net.fairness", "llcuda_net.pace", "llcuda_net.allowance", "llcuda_net.tickets"},
    {"llcuda_net.seats"},
    {"llcuda_net.line"},
    {"llcuda_net.telling"},
    {"llcuda_net.admission", "llcuda_net.outcome", "llcuda_net.outbox", "llcuda_net.continuation"},
    {"llcuda_net.certainty", "llcuda_net.semantic", "llcuda_net.compiling"},
    {"llcuda_net.generations", "llcuda_net.embedding"},
    {"llcuda_net.streams", "llcuda_net.keeping", "llcuda_net.registry", "llcuda_net.replies"},
    {"llcuda_net.publishing", "llcuda_net.intake", "llcuda_net.session", "llcuda_net.host"},
    {"llcuda_net.listing"},
    {"llcuda_net.dispatch", "llcuda_net.analysis", "llcuda_net.watching", "llcuda_net.reporting"},
    {"llcuda_net.runner", "llcuda_net.upstreams"},
    {"llcuda_net.health", "llcuda_net.metrics_http", "llcuda_net.spans"},
    {"llcuda_net.resuming", "llcuda_net.asking", "llcuda_net.metrics", "llcuda_net.tracing"},
    {"llcuda_net.server", "llcuda_net.client"},
    {"llcuda_net.monitoring"},
    {"llcuda_net.serving", "llcuda_net.sync", "llcuda_net.measure"},
    {"llcuda_net"},
    {"llcuda_net.cli"},
]
#: The protocol core does no I/O, reads no clock and knows no event loop.
PROTOCOL_MAY_IMPORT = {
    "llcuda_protocol",
    "__future__",
    "collections",
    "dataclasses",
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


def _layer(name: str) -> int:
    """The row of a module; the longest prefix that is in the list counts."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for number, row in enumerate(LAYERS):
            if prefix in row:
                return number
    raise AssertionError(f"{name} has no layer: add it to LAYERS")


def test_imports_of_llcuda_net_run_one_way() -> None:
    wrong = []
    for module, path in _modules(ROOT / "llcuda_net", "llcuda_net"):
        for name in _imports(path, module):
            if name.startswith("llcuda_net.") and _layer(name) > _layer(module):
                wrong.append(f"{module} imports {name}")
    assert not wrong


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
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
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
        f"from llcuda_net.cli.{command} import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not heavy & set(done.stdout.split())


def test_only_the_live_screen_imports_textual() -> None:
    found = {
        module
        for module, path in _modules(ROOT / "llcuda_net", "llcuda_net")
        for name in _imports(path, module)
        if name.split(".")[0] in {"textual", "rich"}
    }
    assert found == {"llcuda_net.cli.top_app"}


def test_the_server_itself_needs_no_engine_and_no_numba() -> None:
    code = "import sys, llcuda_net.serving; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"xllamacpp", "numba", "numpy", "opentelemetry"} & set(done.stdout.split())
