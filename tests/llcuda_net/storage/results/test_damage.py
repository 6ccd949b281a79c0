"""A damaged store gives right answers or the error `damaged`, and never another answer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.generation.persistence import refused
from llcuda_net.storage.packing.codec import beginning
from llcuda_net.storage.records import Result, TokenLog, hash_of, packed
from llcuda_net.storage.results.interface import DAMAGED, Problem, Query, Retention, Summary
from llcuda_net.storage.results.sqlite import DERIVED, RESULTS, SqliteStore
from llcuda_protocol import ErrorCode
from tests.support.storage.damage import PAGE, damaged_file
from tests.support.storage.records import MODEL, SECOND, START, result

FILES = 200
_BEGIN = "You are a helpful assistant, and these are your rules. "


def id_of(created: int, number: int) -> str:
    """A UUIDv7 of this time."""
    digits = f"{created // 10**6:012x}7{number:03x}8{number:015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def kept() -> list[Result]:
    """Results of every shape: small, long, with probabilities, of several users and models."""
    out = []
    for n in range(12):
        created = START + n * SECOND
        changes: dict[str, Any] = {
            "id": id_of(created, n),
            "key": f"key {n}" if n % 2 else None,
            "owner": ("", "ann", "bob")[n % 3],
            "state": ("done", "done", "done", "failed")[n % 4],
            "model": {**MODEL, "name": ("demo", "other")[n % 2]},
            "request_hash": hash_of(f"request {n}"),
        }
        if n % 3 == 0:
            messages = [
                {"role": "system", "content": _BEGIN * 30 + str(n % 2)},
                {"role": "user", "content": f"What is number {n}?"},
            ]
            changes["request"] = {"messages": messages, "params": {"seed": n}}
        one = result(n, tokens=(4, 40, 200)[n % 3], **changes)
        if n % 5 == 0:
            probabilities = [packed([[7, b" word", -0.5 - n, []]]) for _ in one.log.pieces]
            one.log = TokenLog(one.log.pieces, one.log.ids, probabilities)
        out.append(one)
    return out


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with these results, all in its files and none in a write-ahead log."""
    directory = tmp_path_factory.mktemp("sound")
    store = SqliteStore(directory, write=True)
    for one in kept():
        store.put([one])
    while store.update_index():
        pass
    store.close()
    assert sorted(path.name for path in directory.iterdir()) == [DERIVED, RESULTS]
    return directory


def _asked(question: Callable[[], Any]) -> Any:
    """The answer, or None where it is the error that it is allowed to be."""
    try:
        return question()
    except StorageError as error:
        if error.code != StorageError.DAMAGED or "\n" in error.message:
            raise
        return None


def _right(found: Summary, text: str | None, by_id: dict[str, Result]) -> bool:
    """Whether an entry of a list is what was stored, or says that it is damaged."""
    if found.state == DAMAGED:
        return True
    one = by_id.get(found.id)
    return one is not None and (
        (found.created, found.finished, found.state, found.owner, found.tokens)
        == (one.created, one.finished, one.state, one.owner, len(one.log.pieces))
        and found.model == one.model["name"]
        and text in (None, beginning(one.log.pieces))
    )


def wrong_answers(directory: Path, results: list[Result]) -> list[str]:
    """What a store answers that it was never given."""
    by_id = {one.id: one for one in results}
    out: list[str] = []
    store = _asked(lambda: SqliteStore(directory))
    if store is None:
        return out
    for one in results:
        found = _asked(lambda: store.get(one.id) or "not found")  # noqa: B023
        if found not in (None, one):
            out.append(f"get {one.id}: {found}")
        if one.key is not None:
            found = _asked(lambda: store.find_by_key(str(one.key), one.owner))  # noqa: B023
            if found not in (None, one):
                out.append(f"the key of {one.id}")
        # A damaged one is not served; the request then runs anew, so this is never an error.
        found = store.find_cached(one.model, one.request_hash)
        if found not in (None, one):
            out.append(f"a cached answer, {one.id}")
    exported = _asked(lambda: list(store.export(Query(limit=None))))
    if exported is not None:
        intact = [one for one in exported if isinstance(one, Result)]
        out += ["exported" for one in intact if one != by_id.get(one.id)]
        if len(exported) != len(results):
            out.append(f"an export of {len(exported)}")
    listed = _asked(lambda: store.listed(Query(limit=None)))
    listed = listed or []
    out += [f"listed {one.id}" for one, text in listed if not _right(one, text, by_id)]
    if len(listed) not in (0, len(results)):
        reported = _asked(lambda: [problem for problem in store.verify() if problem])
        if reported == []:
            out.append(f"a list of {len(listed)}, and no problem")
    hits = _asked(lambda: store.search("number", Query(limit=None)))
    out += [f"found {h.summary.id}" for h in hits or () if not _right(h.summary, None, by_id)]
    store.close()
    return out


@pytest.mark.parametrize(
    "seeds", [range(FILES // 4), pytest.param(range(FILES // 4, FILES), marks=pytest.mark.slow)]
)
def test_a_damaged_file_never_gives_a_wrong_answer(
    sound: Path, tmp_path: Path, seeds: range
) -> None:
    """Files with one damage each: bits, bytes, pages zeroed, exchanged or cut off."""
    data = (sound / RESULTS).read_bytes()
    results = kept()
    assert wrong_answers(sound, results) == []
    found = {}
    for seed in seeds:
        directory = tmp_path / "damaged"
        shutil.copytree(sound, directory)
        (directory / RESULTS).write_bytes(damaged_file(data, seed))
        if wrong := wrong_answers(directory, results):
            found[seed] = wrong
        shutil.rmtree(directory)
    assert found == {}


# -- what is done about it ----------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path, write=True)
    yield store
    store.close()


def change(directory: Path, sql: str) -> None:
    db = apsw.Connection(str(directory / RESULTS))
    db.execute(sql)
    db.close()


#: A change of each column of a result; `id` is the only one that a search for it needs.
ALTERED = [
    "id = id || 'x'",
    "created = created + 1",
    "finished = finished + 1",
    "state = 'failed'",
    "model = 99",
    "owner = 'bob'",
    "key = 'another'",
    "request_hash = x'00'",
    "cacheable = 0",
    "hash = x'00'",
    "meta = x'00'",
    "input = x'0081a670726f6d7074a178'",
    "log = x'0092919161'",
    "logprobs = x'0090'",
]


@pytest.mark.parametrize("altered", ALTERED)
def test_each_column_is_covered_by_the_hash(
    altered: str, store: SqliteStore, tmp_path: Path
) -> None:
    one = result(1, key="key", owner="ann")
    store.put([one, result(2)])
    change(tmp_path, f"UPDATE results SET {altered} WHERE id = 'result-000001'")
    problems: list[Problem] = []
    assert list(store.export(Query(limit=None), problems)) == [result(2)]
    assert len(problems) == 1
    assert any(problem for problem in store.verify())
    for question in (
        lambda: store.get(one.id),
        lambda: store.find_by_key("key", "ann"),
        lambda: list(store.export(Query())),
    ):
        with contextlib.suppress(StorageError):  # not found, where the index has moved, too
            assert question() in (None, [result(2)])
    if "id" not in altered:
        with pytest.raises(ResultDamaged, match="result-000001 is damaged") as caught:
            store.get(one.id)
        assert refused(caught.value).code == ErrorCode.DAMAGED


@pytest.mark.parametrize(
    "altered",
    [
        "tokens = 9",
        "prompt_tokens = 9",
        "size = 1",
        "preview = 'x'",
        "beginning = 'x'",
        "seal = x''",
    ],
)
def test_what_lists_show_is_covered_by_the_seal(
    altered: str, store: SqliteStore, tmp_path: Path
) -> None:
    store.put([result(1), result(2)])
    change(tmp_path, f"UPDATE results SET {altered} WHERE id = 'result-000001'")
    (intact, _), (damaged, text) = store.listed(Query())
    assert (intact.id, intact.state) == ("result-000002", "done")
    assert (damaged.id, damaged.state, damaged.preview, text) == ("result-000001", DAMAGED, "", "")
    (problem,) = [problem for problem in store.verify() if problem]
    assert "it is whole, but what lists show" in problem.message
    assert store.get("result-000001") == result(1)


def test_a_damaged_cached_answer_is_not_served(store: SqliteStore, tmp_path: Path) -> None:
    store.put([result(1, request_hash=b"h"), result(2, request_hash=b"h")])
    change(tmp_path, "UPDATE results SET log = x'0092919161' WHERE id = 'result-000002'")
    found = store.find_cached(MODEL, b"h")
    assert found is not None
    assert found.id == "result-000001"
    change(tmp_path, "UPDATE results SET meta = x'00'")
    assert store.find_cached(MODEL, b"h") is None


def alter_in_the_table(directory: Path, before: bytes, after: bytes) -> None:
    """Change bytes in the table of results, and in no index."""
    db = apsw.Connection(str(directory / RESULTS))
    root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'results'").get
    db.close()
    data = bytearray((directory / RESULTS).read_bytes())
    table = slice((root - 1) * PAGE, root * PAGE)
    assert data[table].count(before) == 1
    data[table] = data[table].replace(before, after)
    (directory / RESULTS).write_bytes(data)


def test_a_damaged_row_that_its_indices_do_not_match_is_replaced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(3)])
    store.close()
    alter_in_the_table(tmp_path, *(result(n).created.to_bytes(8, "big") for n in (1, 9)))
    store = SqliteStore(tmp_path, write=True)
    with pytest.raises(ResultDamaged):
        store.get("result-000001")
    store.put([result(1)])
    assert store.get("result-000001") == result(1)
    assert [problem for problem in store.verify() if problem] == []
    store.close()


def test_a_result_that_the_journal_still_has_replaces_a_damaged_one(
    store: SqliteStore, tmp_path: Path
) -> None:
    store.put([result(1), result(2)])
    change(tmp_path, "UPDATE results SET meta = x'00' WHERE id = 'result-000001'")
    assert store.missing(["result-000001", "result-000002"]) == {"result-000001"}
    store.put([result(1), result(2, reason="another")])
    assert [store.get(result(n).id) for n in (1, 2)] == [result(1), result(2)]
    assert [problem for problem in store.verify() if problem] == []


def test_new_results_do_not_share_a_damaged_content(tmp_path: Path) -> None:
    """Stored once however often it is repeated: so the next repetition mends it."""
    long = {"prompt": _BEGIN * 100}
    store = SqliteStore(tmp_path, write=True)
    store.put([result(1, request=long)])
    store.close()
    change(tmp_path, "UPDATE bodies SET data = zeroblob(20)")
    change(tmp_path, "UPDATE models SET fingerprint = x'c1', name = 'x'")
    store = SqliteStore(tmp_path, write=True)
    store.put([result(2, request=long)])
    for number in (1, 2):
        assert store.get(result(number).id) == result(number, request=long)
    assert [problem for problem in store.verify() if problem] == []
    store.close()


def test_a_prune_passes_damaged_results(tmp_path: Path) -> None:
    """What the row and the index call old goes; where they differ, nothing does."""
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(6)])
    store.close()
    change(
        tmp_path, "UPDATE results SET meta = x'00' WHERE id IN ('result-000001', 'result-000004')"
    )
    alter_in_the_table(tmp_path, *(result(n).created.to_bytes(8, "big") for n in (2, 9)))
    store = SqliteStore(tmp_path, write=True)
    steps = list(store.prune(Retention(before=START + 4 * SECOND)))
    store.close()
    assert (sum(one.results for one in steps), sum(one.damaged for one in steps)) == (3, 1)
    left = apsw.Connection(str(tmp_path / RESULTS)).execute("SELECT id FROM results NOT INDEXED")
    assert [row[0] for row in left] == ["result-000002", "result-000004", "result-000005"]


def test_a_damaged_analysis_is_computed_again(store: SqliteStore, tmp_path: Path) -> None:
    store.put([result(n) for n in range(4)])
    analyses = store.analyses
    space = analyses.open_space(MODEL, 2, 1)
    analyses.embed(space.id, 4, [(seq, 0.5, bytes([seq, 1])) for seq in range(1, 5)])
    db = apsw.Connection(str(tmp_path / DERIVED))
    db.execute("UPDATE embeddings SET codes = x'0909' WHERE seq = 2")
    db.execute("UPDATE embeddings SET scale = 0.25 WHERE seq = 3")
    db.execute("INSERT INTO figures VALUES (1, 1, 0.5, 1.5, 0.5, 0, 1, 0.5, x'00')")
    db.close()
    assert analyses.certainty("result-000000") is None
    assert [[one.seq for one in page] for page in analyses.embeddings(space.id)] == [[1, 4]]
    assert [one.seq for one in analyses.unembedded(4, 9, space.id)] == [2, 3]
    assert [one.seq for one in analyses.unembedded(4, 1, space.id)] == [2]
    analyses.embed(space.id, 2, [(2, 0.5, b"\2\1")])
    assert [one.seq for one in analyses.unembedded(4, 9, space.id)] == [3]
    analyses.embed(space.id, 3, [])
    assert analyses.unembedded(4, 9, space.id) == []
    assert [s.seq for s in analyses.spaces()] == [4]
    assert [one.seq for page in analyses.embeddings(space.id) for one in page] == [1, 4, 2]


def test_a_search_index_that_is_damaged_while_it_serves_is_made_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n) for n in range(300)])
    while store.update_index():
        pass
    store.close()
    derived = tmp_path / DERIVED
    data = bytearray(derived.read_bytes())
    data[8 * PAGE :] = bytes(len(data) - 8 * PAGE)
    derived.write_bytes(data)
    store, reading = SqliteStore(tmp_path, write=True), SqliteStore(tmp_path)
    with contextlib.suppress(StorageError):
        reading.search("number", Query())
    store.put([result(n) for n in range(300, 302)])
    while store.update_index():
        pass
    for one in (store, reading):
        assert len(one.search("number", Query(limit=None))) == 302
        one.close()


def test_an_index_that_is_damaged_is_made_again_at_the_start(tmp_path: Path) -> None:
    """The table has all results; an index that has not is found out, and mended."""
    store = SqliteStore(tmp_path, write=True)
    store.put([result(n, key=f"key {n}") for n in range(9)])
    store.close()
    db = apsw.Connection(str(tmp_path / RESULTS))
    root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'results_key'").get
    db.close()
    data = bytearray((tmp_path / RESULTS).read_bytes())
    page = slice((root - 1) * PAGE, root * PAGE)
    data[page] = data[page].replace(b"key 3", b"kex 3")
    (tmp_path / RESULTS).write_bytes(data)
    reading = SqliteStore(tmp_path)
    assert reading.find_by_key("key 3", "") is None
    assert ["results_key" in p.message for p in reading.verify() if p] == [True]
    reading.close()
    store = SqliteStore(tmp_path, write=True, mend=True)
    assert store.find_by_key("key 3", "") == result(3, key="key 3")
    assert [problem for problem in store.verify() if problem] == []
    store.close()


def test_of_a_store_that_was_cut_and_grew_again_verify_names_what_it_can(
    sound: Path, tmp_path: Path
) -> None:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    whole = {one.id for one in kept()}
    data = (sound / RESULTS).read_bytes()
    for size in range(len(data) - PAGE, 0, -PAGE):  # the log's pages made it as long as it was
        (tmp_path / RESULTS).write_bytes(data[:size].ljust(len(data), b"\0"))
        store = _asked(lambda: SqliteStore(tmp_path))
        if store is None:
            continue
        with contextlib.closing(store):
            problems = [problem for problem in store.verify() if problem is not None]
            assert problems
            assert {problem.id for problem in problems} <= {*whole, ""}
