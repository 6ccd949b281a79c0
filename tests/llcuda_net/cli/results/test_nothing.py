"""`llcuda results` where there is nothing to do, and options that cannot have an effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import Llcuda

NOTHING = ("--model", "no such model")


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    "arguments",
    [("list", *NOTHING), ("search", "nosuchword"), ("export", *NOTHING),
     ("export", "--format", "csv", *NOTHING)],
)  # fmt: skip
def test_where_nothing_matches_a_line_says_so(llcuda: Llcuda, arguments: tuple[str, ...]) -> None:
    done = llcuda(*arguments)
    assert (done.code, done.err) == (Exit.OK, "no results match\n")


@pytest.mark.usefixtures("directory")
def test_a_file_without_results_is_named_as_that(llcuda: Llcuda, tmp_path: Path) -> None:
    done = llcuda("export", "-o", str(tmp_path / "out.csv"), *NOTHING)
    assert (done.code, done.err) == (Exit.OK, "no results match: wrote 0 results\n")
    done = llcuda("prune", "--older-than", "9999w", "--yes")
    assert done.out == "nothing would go: no result is that old, and all fit\n"


def test_an_empty_store_was_not_verified(
    llcuda: Llcuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLCUDA_DATA_DIR", str(tmp_path))
    SqliteStore(tmp_path, write=True).close()
    done = llcuda("verify")
    assert (done.code, done.out) == (Exit.OK, "nothing is stored: there was nothing to verify\n")


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", "word", "--server", "a:1"), "--server is of --semantic"),
        (("search", "word", "--tls"), "--tls is of --semantic"),
        (("search", "word", "--tls-ca", "x"), "--tls-ca is of --semantic"),
        (("search", "word", "--token-file", "x"), "--token-file is of --semantic"),
        (("list", "--since", "1h", "--until", "2h"), "--since is not before --until"),
        (("export", "--since", "2026-02-01", "--until", "2026-01-01"), "nothing can match"),
    ],
)
def test_options_without_an_effect_are_refused(
    llcuda: Llcuda, arguments: tuple[str, ...], said: str
) -> None:
    done = llcuda(*arguments)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
