"""`llcuda results list` and `search`, and ids given by their beginning."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.cli.common import Exit
from llcuda_net.cli.units import iso
from llcuda_net.storage.results.interface import Query
from llcuda_net.storage.results.sqlite import SqliteStore
from tests.support.cli.results import OBEYED, ODD, TWIN, Llcuda, everything
from tests.support.storage.records import SECOND, START, result


@pytest.mark.usefixtures("directory")
def test_list_is_a_table_newest_first(llcuda: Llcuda) -> None:
    done = llcuda("list", "--limit", "3")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].split() == ["ID", "CREATED", "STATE", "TOKENS", "MODEL", "PROMPT"]
    assert [line.split()[0] for line in done.lines[1:]] == ["result-000042", TWIN, ODD]
    assert "What is a slow reader?" in done.lines[3]
    assert "\x1b" not in done.out


@pytest.mark.usefixtures("directory")
def test_list_filters(llcuda: Llcuda) -> None:
    def ids(*arguments: str) -> list[str]:
        return [one["id"] for one in llcuda("list", "--json", *arguments).objects]

    assert len(ids()) == len(ids("--limit", "0")) == 23
    assert ids("--state", "failed") == [TWIN]
    assert ids("--state", "failed", "--state", "cancelled") == ["result-000042", TWIN]
    assert ids("--model", f"other{OBEYED}") == [TWIN]
    assert ids("--model", "none") == []
    assert ids("--since", iso(START + 40 * SECOND), "--until", iso(START + 42 * SECOND)) == [
        TWIN,
        ODD,
    ]
    assert ids("--since", "1h") == []
    assert ids("--text", '"slow reader"') == [ODD]
    assert ids("--text", "number") == [TWIN, *(f"result-{n:06d}" for n in range(19, -1, -1))]
    assert ids("--text", "number", "--limit", "2", "--until", iso(START + 19 * SECOND)) == [
        "result-000018",
        "result-000017",
    ]
    assert ids("--text", "nowhere") == []


@pytest.mark.usefixtures("directory")
def test_list_of_nothing_says_so_on_stderr(llcuda: Llcuda) -> None:
    done = llcuda("list", "--since", "1h")
    assert (done.code, done.out, done.err) == (0, "", "no results match\n")


def test_long_lists_are_read_page_by_page(directory: Path) -> None:
    store = SqliteStore(directory, write=True)
    same = [result(n, tokens=1, id=f"same-{n:04d}", created=START - SECOND) for n in range(700)]
    store.put(same)
    while store.update_index():
        pass
    want = {one.id for one in [*everything(), *same]}
    found = [one.id for one in store.walk(Query(limit=5))]
    assert len(found) == len(want)
    assert set(found) == want
    found = [one.id for one in store.walk(Query(), "number")]
    assert len(found) == len(set(found)) == 721
    store.close()


@pytest.mark.usefixtures("directory")
def test_search_highlights_what_it_found(llcuda: Llcuda) -> None:
    done = llcuda("search", '"slow reader"', "OR", "nowhere")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0].startswith(ODD[:18])
    assert "*slow reader*" in done.out
    assert "\x1b" not in done.out
    (found,) = llcuda("search", "--json", "slow", "slot*").objects
    (begin, end), *_ = found["prompt"]["highlights"]
    assert found["prompt"]["excerpt"][begin:end] == "slow"
    (begin, end), *_ = found["text"]["highlights"]
    assert found["text"]["excerpt"][begin:end] == "slot"
    assert found["id"] == ODD
    assert found["score"] > 0


@pytest.mark.usefixtures("directory")
def test_search_filters_and_errors(llcuda: Llcuda) -> None:
    assert len(llcuda("search", "--json", "number").objects) == 20
    assert len(llcuda("search", "--json", "number", "--limit", "0").objects) == 21
    (found,) = llcuda("search", "--json", "number", "--state", "failed").objects
    assert found["id"] == TWIN
    done = llcuda("search", "nowhere")
    assert (done.code, done.out, done.err) == (0, "", "no results match\n")
    for words in (["search", "?!"], ["list", "--text", "?!"]):
        done = llcuda(*words)
        assert (done.code, done.out) == (Exit.USAGE, "")
        assert "give at least one word" in done.err


def test_search_says_what_it_cannot_find_yet(directory: Path, llcuda: Llcuda) -> None:
    store = SqliteStore(directory, write=True)
    store.put([result(60)])
    store.close()
    assert "not found yet: 1 result" in llcuda("search", "slow").err
    assert "not found yet: 1 result" in llcuda("list", "--text", "slow").err


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("prefix", [ODD[:20], ODD[:20].upper(), ODD])
def test_a_prefix_of_an_id_is_enough(llcuda: Llcuda, prefix: str) -> None:
    (found,) = llcuda("show", "--json", prefix).objects
    assert found["id"] == ODD


def test_a_prefix_is_found_by_the_time_in_it(directory: Path, llcuda: Llcuda) -> None:
    store = SqliteStore(directory, write=True)
    now = 0x0199_1234_5678
    store.put([result(50, id="01991234-5678-7000-8000-000000000000", created=now * 10**6)])
    store.close()
    for length in (4, 8, 13, 30):
        prefix = "01991234-5678-7000-8000-000000000000"[:length]
        (found,) = llcuda("show", "--json", prefix).objects
        assert found["created"] == iso(now * 10**6)


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (ODD[:13], Exit.USAGE, "2 results begin with"),
        ("result-", Exit.USAGE, "21 results begin with"),
        ("nobody", Exit.REFUSED, "there is no result 'nobody'"),
        ("ffffffffffffffff", Exit.REFUSED, "there is no result"),
        ("", Exit.USAGE, "the id is empty"),
        ("\udcff", Exit.USAGE, "not UTF-8"),
    ],
)
def test_ids_that_name_no_result(llcuda: Llcuda, given: str, code: int, message: str) -> None:
    done = llcuda("show", given)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1
