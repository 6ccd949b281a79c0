"""Every block of commands in README.md and docs/ is run, or says why not.

What a comment before a block may say: tools/documented/blocks.py. Commands run as they stand, in a
home of their own, with a server and llama-servers at the addresses that the pages show.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_blocks import Sandbox, page_server, upstreams
from tests.test_docs import DOCS, ROOT
from tools.documented.blocks import Block, blocks

#: The protocol's specification and the vectors have no commands.
PAGES = [page.relative_to(ROOT).as_posix() for page in DOCS]
BLOCKS = {page: blocks(ROOT, page) for page in PAGES}
RUN = {
    page: mine
    for page, all_ in BLOCKS.items()
    if (mine := [block for block in all_ if block.kind in ("", "run")])
}


@pytest.fixture(scope="module")
def llama_servers() -> Iterator[list[str]]:
    with upstreams() as found:
        yield found


def test_each_block_is_found() -> None:
    """By a plain search, too: none is lost by how it is written."""
    for page, found in BLOCKS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(found) == len(re.findall(r"^ *```(?:sh|bash|shell|console)\b", text, re.M)), page
    assert sum(map(len, RUN.values())) > 25


def test_each_reason_is_one() -> None:
    """Files that a comment names exist, and its words are known."""
    wrong = []
    for block in [block for found in BLOCKS.values() for block in found]:
        where = f"{block.page}:{block.line}"
        if block.kind == "run" and block.words != "alone":
            wrong.append(f"{where}: {block.words!r} is no way to run it")
        names = [block.words] if block.kind == "run by" else []
        names += re.findall(r"\b(?:tests|tools)/[\w/]+(?:\.py)?", block.words)
        wrong += [f"{where}: {name}" for name in names if not (ROOT / name).exists()]
    assert not wrong, "\n".join(wrong)


def test_a_comment_that_is_misspelt_is_found() -> None:
    """A line before a block that looks like one of ours is one of ours."""
    wrong = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        comments = re.findall(r"^ *<!-- ([^\n]*run[^\n]*)-->\n(.*)", text, re.MULTILINE)
        for words, following in comments:
            before_block = following.lstrip() in ("```sh", "```console")
            if not (before_block and re.match(r"(not run|run by|run): \S", words)):
                wrong.append(f"{page}: {words}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", RUN)
def test_commands_of(page: str, tmp_path: Path, llama_servers: list[str]) -> None:
    wrong = []
    with page_server() as server:
        for number, block in enumerate(RUN[page]):
            folder = tmp_path / str(number)
            folder.mkdir()
            done = Sandbox(folder, server, llama_servers).run(block)
            if done.returncode:
                wrong.append(_report(block, done))
    assert not wrong, "\n\n".join(wrong)


def test_a_command_that_fails_is_noticed(tmp_path: Path, llama_servers: list[str]) -> None:
    with page_server() as server:
        sandbox = Sandbox(tmp_path, server, llama_servers)
        for code in (
            "false\ntrue\n",
            "false | true\n",
            "llcuda-client --no-such-option\n",
            "llcuda serve --no-such-option\ntrue\n",
            "curl -s http://127.0.0.1:9000/v1/nothing\n",
        ):
            assert sandbox.run(Block("page", 1, code, "", "")).returncode, code


def _report(block: Block, done: subprocess.CompletedProcess[str]) -> str:
    said = f"{done.stdout[-500:]}\n{done.stderr[-800:]}"
    return f"{block.page}:{block.line} ended with {done.returncode}:\n{block.code}{said}"
