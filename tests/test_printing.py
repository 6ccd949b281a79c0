"""Everything that prints does so through one module, which makes text harmless for a terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: The module, and the logs, which have the same function in their chain.
PRINTERS = {"llcuda_net/util/terminal.py", "llcuda_net/util/logs.py"}
#: What may take a standard stream: it only looks, or it is the module's.
MAY_TAKE_A_STREAM = {
    *("is_terminal", "is_clever", "wants_colour", "paint", "echo", "status_line", "isinstance"),
    "table",  # it looks how wide it is
    "repaint",  # of the module
    "Popen",  # of a child of ours
}
#: Writes to a standard stream past the module.
FORBIDDEN = {
    *("print", "pprint", "print_exc", "print_exception", "print_stack", "ArgumentParser"),
    "print_tb",
}
#: Where a library draws; the text that it gets is made harmless there, see the tests of each.
DRAWERS: dict[str, Set[str]] = {
    "llcuda_net/cli/progress.py": {"Console"},
    "llcuda_net/cli/chat/screen/output.py": {"Painter"},
}


def past_the_module(source: str, allowed: Set[str] = frozenset()) -> Iterator[str]:
    """What a module prints by itself, as LINE: CALL."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = _last(node.func)
        wrong = name in FORBIDDEN
        if isinstance(node.func, ast.Attribute) and _is_stream(node.func.value):
            wrong |= name in ("write", "writelines")
        if name == "write" and ast.unparse(node.func) == "os.write":
            wrong |= isinstance(node.args[0], ast.Constant)
        if name == "exit" and node.args and isinstance(node.args[0], ast.JoinedStr):
            wrong = True
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name not in MAY_TAKE_A_STREAM | allowed:
            wrong |= any(map(_is_stream, given))
        if wrong:
            yield f"{node.lineno}: {ast.unparse(node)}"


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_stream(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in ("sys.stdout", "sys.stderr", "sys.stdout.buffer", "sys.stderr.buffer")


def test_nothing_prints_past_the_module() -> None:
    found = []
    for folder in ("llcuda_net", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name not in PRINTERS:
                calls = past_the_module(path.read_text("utf-8"), DRAWERS.get(name, frozenset()))
                found += [f"{name}:{call}" for call in calls]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "print(x)",
        "sys.stdout.write(x)",
        "sys.stderr.buffer.write(x)",
        "sys.stdout.writelines(x)",
        "writer(sys.stdout)",
        "Console(file=sys.stderr)",
        "os.write(2, x)",
        "traceback.print_exc()",
        "argparse.ArgumentParser()",
        "sys.exit(f'no {x}')",
        "csv.writer(sys.stdout.buffer)",
    ],
)
def test_the_search_finds_what_prints(source: str) -> None:
    assert list(past_the_module(source)) == [f"1: {source}"]


def test_the_search_leaves_the_module_alone() -> None:
    source = "echo(x, file=sys.stderr); sys.stdout.flush(); is_clever(sys.stdout); file.write(x)"
    assert list(past_the_module(source)) == []
