"""`llcuda results` as a command: its arguments, its store, its help, and as a process."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.results import command
from tests.support import processes
from tests.support.cli.results import ODD, Llcuda
from tests.support.cli.terminal import PATIENCE, on_a_terminal

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "x"],
        ["search", "x"],
        ["export"],
        ["verify"],
        ["stats"],
        ["prune", "--max-size", "1GB", "--yes"],
    ],
)
def test_nothing_to_open(llcuda: Llcuda, tmp_path: Path, command: list[str]) -> None:
    done = llcuda(*command, "--data-dir", str(tmp_path / "none"))
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err.startswith(f"llcuda results {command[0]}: error: there are no results in")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_store(llcuda: Llcuda, tmp_path: Path) -> None:
    (tmp_path / "results.db").write_bytes(b"no database at all " * 500)
    done = llcuda("list", "--data-dir", str(tmp_path))
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "damaged" in done.err
    assert done.err.count("\n") == 1


def test_the_data_directory_comes_from_option_environment_or_platform(
    directory: Path, llcuda: Llcuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path / "none"))
    assert llcuda("list").code == Exit.USAGE
    assert llcuda("list", "--data-dir", str(directory)).code == 0
    monkeypatch.delenv("LLCUDA_DATA_DIR")
    monkeypatch.setattr("llcuda_net.storage.data_dir.default_directory", lambda: directory)
    assert llcuda("list").code == 0


def test_it_reads_while_another_writes(directory: Path, llcuda: Llcuda) -> None:
    writer = apsw.Connection(str(directory / "results.db"))
    writer.execute("BEGIN IMMEDIATE; DELETE FROM results WHERE id = 'result-000001'")
    for words in (["list"], ["show", ODD], ["search", "slow"], ["export"], ["verify"], ["stats"]):
        assert llcuda(*words).code == 0
    writer.execute("ROLLBACK")
    writer.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--since", "once"], "must be an age"),
        (["list", "--until", "99999999999w"], "too far away"),
        (["list", "--until", "9999-01-01"], "too far away"),
        (["list", "--limit", "-1"], "must be a whole number"),
        (["list", "--state", "running"], "invalid choice"),
        (["prune", "--max-size", "much"], "must be a size"),
        (["prune", "--max-size", "9" * 20], "too large"),
        (["show"], "required: ID"),
        (["show", "x", "--json", "--text"], "not allowed with"),
        (["search"], "required: WORD"),
        (["nothing"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line(llcuda: Llcuda, arguments: list[str], message: str) -> None:
    done = llcuda(*arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_password_in_a_wrong_place_is_not_repeated(llcuda: Llcuda) -> None:
    done = llcuda("--store", "postgresql://ann:secret@db/x", "list")
    assert done.code == Exit.USAGE
    assert "postgresql://…" in done.err
    assert "secret" not in done.err


def test_every_help_is_cheap_and_has_an_example() -> None:
    heavy = ["apsw", "trio", "zstandard", "msgspec", "httpx", "pyarrow", "platformdirs", "asyncio"]
    code = (
        "import sys, contextlib\n"
        "from llcuda_net.cli.main import main\n"
        "for group in ([], ['results'], *(['results', n] for n in sys.argv[1:])):\n"
        "    try: main([*group, '--help'])\n"
        "    except SystemExit as e: assert not e.code\n"
        "    print('----')\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    names = ["list", "show", "search", "export", "verify", "prune", "stats"]
    found = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True
    )
    assert found.stderr == "[]\n"
    helps = found.stdout.split("----\n")[:-1]
    assert len(helps) == 9
    assert all("example" in text and "llcuda results" in text for text in helps)


def test_examples_in_help_and_docs_are_right() -> None:
    parser = command.make_parser()
    commands = next(a for a in parser._actions if a.dest == "command").choices
    assert commands is not None
    texts = [(ROOT / "docs/results.md").read_text(), parser.epilog or ""]
    texts += [one.epilog or "" for one in commands.values()]  # type: ignore[attr-defined]
    found = [
        match[1]
        for text in texts
        for match in re.finditer(r"^(?:examples?: )? *llcuda results (\w.*)$", text, re.MULTILINE)
    ]
    assert len(found) >= 20
    for example in found:
        words = shlex.split(re.split(r"  +|[|>#]|&&", example)[0])
        if words[0] != "--help":
            parser.parse_args(words)


#: Runs commands one after the other on one terminal, each with or without NO_COLOR.
_DRIVER = """\
import json, os, sys
from llcuda_net.cli.main import main

for colour, words in json.loads(sys.argv[1]):
    os.environ.pop("NO_COLOR", None)
    if not colour:
        os.environ["NO_COLOR"] = "1"
    assert main(["results", *words]) == 0
    print("====", flush=True)
"""


@pytest.mark.usefixtures("directory")
def test_a_terminal_gets_colour_and_fitting_tables_but_no_control_characters() -> None:
    plain = [
        ["search", "slot"],
        ["list"],
        ["show", ODD],
        ["show", ODD, "--tokens"],
        ["show", ODD, "--text"],
        ["export", "--format", "csv"],
        ["export"],
        ["stats"],
    ]
    runs = [(True, ["search", "slow", "slot"]), *((False, words) for words in plain)]
    seen = on_a_terminal([sys.executable, "-c", _DRIVER, json.dumps(runs)], columns=100)
    coloured, *others = seen.split("====\n")[:-1]
    assert "\x1b[1;33mslow\x1b[0m" in coloured
    for words, text in zip(plain, others, strict=True):
        assert {c for c in text if not c.isprintable()} <= {"\n"}, words
    table = others[1].splitlines()
    assert max(map(len, table)) == 100
    assert table[1].endswith("long l…")
    assert r"A slot\x1b]0;owned\x07" in others[4]


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("command", [["list"], ["export"]])
def test_a_closed_pipe_ends_it_in_silence(command: list[str]) -> None:
    with subprocess.Popen(
        processes.command("main", "results", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == Exit.PIPE
        assert process.stderr.read() == b""
