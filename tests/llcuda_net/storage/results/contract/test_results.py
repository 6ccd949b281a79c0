"""What any store must do with results."""

from __future__ import annotations

import pytest

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Level, Splice, TokenLog, hash_of, packed
from llcuda_net.storage.results.interface import HIGHLIGHT, Query, Retention, Store
from tests.support.storage.records import MODEL, SECOND, START, result


def names(store: Store, query: Query) -> list[int]:
    return [int(found.id.removeprefix("result-")) for found in store.find(query)]


def derive_all(store: Store) -> None:
    while store.update_index():
        pass


def test_a_result_comes_back_as_it_was(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    long = "A long text, repeated in each turn of a conversation. " * 40
    messages = [{"role": "system", "content": long}, {"role": "user", "content": "ünï 👋"}]
    logprobs = [packed([[5, b"\xf0\x9f", -0.5, [[5, b"\xf0\x9f", -0.5], [6, b"", None]]]])] * 3000
    for kept in (
        result(1),
        result(2, tokens=0, request={}, model={}, usage={}, timings={}, seed=None),
        result(3, request={"messages": messages, "params": {"top_k": 40, "stop": ["a", "b"]}}),
        result(4, tokens=5000, key="key", owner="ann", level=Level.STRICT, on_disconnect=1.5),
        result(5, request={"prompt": list(range(30_000))}),
        result(
            6,
            log=TokenLog(["x"] * 3000, [1] * 3000, logprobs),
            splices=[Splice(7, "http://b", 1 << 51)],
        ),
        result(7, state="failed", error={"code": "x", "message": "y"}, cached_from="result-1"),
        result(8, request={"prompt": long}, cacheable=False),
    ):
        writing.put([kept])
        assert reading.get(kept.id) == kept
    assert [problem for problem in reading.verify() if problem] == []


def test_an_id_is_stored_once(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    writing.put([result(1)])
    writing.put([result(1, reason="another"), result(2), result(2)])
    found = reading.get("result-000001")
    assert found is not None
    assert found.reason == "stop"
    assert names(reading, Query()) == [2, 1]
    assert reading.missing(["result-000001", "result-000003"]) == {"result-000003"}
    writing.put([])


def test_states_of_some(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    writing.put([result(1), result(2, state="failed"), result(3, owner="ann")])
    ids = [f"result-{n:06}" for n in range(1, 5)]
    first = {ids[0]: "done", ids[1]: "failed"}
    assert reading.states(ids) == {**first, ids[2]: "done"}
    assert reading.states(ids[:2]) == first
    assert reading.states(ids, "ann") == {ids[2]: "done"}
    assert reading.states([]) == {}


def test_all_of_a_batch_or_nothing(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    with pytest.raises(StorageError) as caught:
        writing.put([result(1), result(2, request={"prompt": object()})])
    assert caught.value.code == StorageError.INVALID
    assert names(reading, Query()) == []
    writing.put([result(1)])
    assert names(reading, Query()) == [1]


def test_find_narrows_and_pages(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    states = ["done", "done", "failed", "cancelled"]
    writing.put(
        [
            result(
                n,
                state=states[n % 4],
                owner=["", "ann", "bob"][n % 3],
                model={**MODEL, "name": ["demo", "other"][n % 2]},
            )
            for n in range(24)
        ]
    )
    everything = list(range(23, -1, -1))
    assert names(reading, Query()) == everything
    assert names(reading, Query(limit=3)) == [23, 22, 21]
    assert names(reading, Query(limit=3, after="result-000021")) == [20, 19, 18]
    assert names(reading, Query(limit=0)) == []
    assert names(reading, Query(since=START + 20 * SECOND)) == [23, 22, 21, 20]
    assert names(reading, Query(until=START + 2 * SECOND)) == [1, 0]
    assert names(reading, Query(model="other")) == [n for n in everything if n % 2]
    assert names(reading, Query(states=["failed"])) == [n for n in everything if n % 4 == 2]
    assert names(reading, Query(states=["done", "failed"], limit=2)) == [22, 21]
    assert names(reading, Query(owner="ann")) == [n for n in everything if n % 3 == 1]
    assert names(reading, Query(owner="")) == [n for n in everything if n % 3 == 0]
    assert names(reading, Query(id="result-000001", owner="ann")) == [1]
    assert names(reading, Query(id="result-000001", owner="bob")) == []
    wanted = Query(owner="ann", model="other", states=["cancelled"], limit=None)
    assert names(reading, wanted) == [n for n in everything if n % 12 == 7]
    exported = [found.id for found in reading.export(Query(limit=None))]
    assert exported == [f"result-{n:06d}" for n in range(24)]
    some = reading.export(Query(owner="ann", limit=2, after="result-000001"))
    assert [found.id for found in some] == ["result-000004", "result-000007"]


def test_owners_do_not_see_each_other(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    writing.put([result(1, owner="ann", key="k"), result(2, owner="bob", key="k")])
    derive_all(writing)
    assert reading.get("result-000001", "bob") is None
    assert reading.get("result-000001", "ann") is not None
    for owner, number in (("ann", 1), ("bob", 2)):
        found = reading.find_by_key("k", owner)
        assert found is not None
        assert found.id == f"result-00000{number}"
        hits = reading.search("number", Query(owner=owner))
        assert [hit.summary.id for hit in hits] == [found.id]
        assert reading.stats(owner).results == 1
        assert reading.plan(Retention(max_bytes=0, owner=owner)).results == 1
        ((summary, text),) = reading.listed(Query(owner=owner))
        assert [summary] == reading.find(Query(owner=owner))
        assert text == " ".join(result(number).text.split())
    assert reading.find_by_key("k", "") is None
    assert reading.find_cached(MODEL, hash_of(1), "bob") is None
    assert reading.find_cached(MODEL, hash_of(1), "ann") is not None


def test_the_cache_wants_the_very_model_and_request(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    same = hash_of("same")
    writing.put(
        [
            result(1, request_hash=same),
            result(2, request_hash=same, cacheable=False),
            result(3, request_hash=same, cacheable=False, cached_from="result-000001"),
            result(4, request_hash=same, model={**MODEL, "size": 1}),
        ]
    )
    found = reading.find_cached(dict(reversed(MODEL.items())), same)
    assert found is not None
    assert found.id == "result-000001"
    assert reading.find_cached({**MODEL, "build_info": "b2"}, same) is None
    assert reading.find_cached(MODEL, hash_of("other")) is None


def test_search_finds_words_phrases_and_prefixes(stores: tuple[Store, Store]) -> None:
    writing, reading = stores

    def said(n: int, prompt: str, text: str) -> None:
        request = {"messages": [{"role": "user", "content": prompt}]}
        writing.put([result(n, request=request, log=TokenLog([text], [None]))])

    said(1, "What is a slot?", "A slot is one parallel sequence.")
    said(2, "What is a sequence?", "Tokens in parallel: one after another.")
    said(3, "Zürich?", 'It\'s a town; "quoted" AND NOT (x) col:umn')
    assert reading.search("slot", Query()) == []
    derive_all(writing)

    def found(words: str) -> list[int]:
        return sorted(int(hit.summary.id[-1]) for hit in reading.search(words, Query()))

    assert found("slot") == [1]
    assert found("PARALLEL sequence") == [1, 2]
    assert found('"parallel sequence"') == [1]
    assert found("sequ*") == [1, 2]
    assert found("slot OR town") == [1, 3]
    assert found("zurich") == [3]
    for odd in ("col:umn", "(x)", "NOT", '"quoted', "it's", "a-b OR", "^town NEAR(", "town*"):
        found(odd)
    for empty in ("", "  ", '""', "OR", "*"):
        with pytest.raises(StorageError):
            found(empty)
    (hit,) = reading.search('"one parallel"', Query())
    left, right = HIGHLIGHT
    assert f"{left}one parallel{right}" in hit.text
    assert hit.prompt.startswith("What is a slot")
    assert reading.search("what", Query(until=START + 2 * SECOND))[0].summary.id[-1] == "1"
    assert len(reading.search("what OR town", Query(limit=2))) == 2


def test_stats_count(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    assert reading.stats().results == 0
    writing.put([result(n, state=["done", "failed"][n % 2]) for n in range(6)])
    assert reading.stats().unindexed == 6
    derive_all(writing)
    stats = reading.stats()
    assert (stats.results, stats.tokens, stats.prompt_tokens, stats.unindexed) == (6, 48, 30, 0)
    assert stats.states == {"done": 3, "failed": 3}
    assert stats.models == {"demo": 6}
    assert (stats.oldest, stats.newest) == (START, START + 5 * SECOND)
    assert stats.bytes > 0
    assert [(d.day, d.state, d.results) for d in stats.days] == [
        ("2023-11-14", "done", 3),
        ("2023-11-14", "failed", 3),
    ]


def test_prune_deletes_what_its_plan_says(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    shared = "The same long system prompt, over and over. " * 60
    writing.put([result(n, tokens=400, request={"prompt": shared}) for n in range(50)])
    derive_all(writing)
    assert reading.plan(Retention()).results == 0
    wanted = Retention(before=START + 20 * SECOND)
    plan = reading.plan(wanted)
    assert (plan.results, plan.newest) == (20, START + 19 * SECOND)
    assert names(reading, Query(limit=None)) == list(range(49, -1, -1))
    steps = list(writing.prune(wanted))
    assert (sum(s.results for s in steps), sum(s.bytes for s in steps)) == (20, plan.bytes)
    assert names(reading, Query(limit=None)) == list(range(49, 19, -1))
    assert len(reading.search("prompt", Query(limit=None))) == 30
    assert [problem for problem in reading.verify() if problem] == []
    size = sum(found.size for found in reading.find(Query(limit=None)))
    plan = reading.plan(Retention(max_bytes=size // 2))
    assert 10 <= plan.results <= 20
    for _ in writing.prune(Retention(max_bytes=size // 2)):
        pass
    left = [found.size for found in reading.find(Query(limit=None))]
    assert len(left) == 30 - plan.results
    assert sum(left) <= size // 2
    assert list(writing.prune(Retention(max_bytes=size // 2))) == []
    for _ in writing.prune(Retention(max_bytes=0)):
        pass
    assert names(reading, Query()) == []
    assert reading.stats().days[0].results == 50


def test_a_prune_may_be_left_in_the_middle(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    for first in range(0, 2000, 250):
        writing.put([result(n, tokens=2) for n in range(first, first + 250)])
    steps = writing.prune(Retention(max_bytes=0))
    one = next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert 0 < one.results < 2000
    assert reading.stats().results == 2000 - one.results
    writing.put([result(5000)])


def test_closing_twice_does_nothing(stores: tuple[Store, Store]) -> None:
    for store in stores:
        store.close()
        store.close()


def test_search_finds_text_of_all_scripts(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    texts = ["東京都に住む。", "Ich wohne in ＡＢＣ-Straße", "กรุงเทพมหานคร", "서울에서"]
    for number, text in enumerate(texts):
        writing.put([result(number, request={"prompt": text}, log=TokenLog([text], [None]))])
    derive_all(writing)
    for number, words in ((0, "東京"), (0, "都"), (1, "abc"), (2, "เทพ"), (3, "서울")):
        (hit,) = reading.search(words, Query())
        assert hit.summary.id == f"result-{number:06d}"
        plain = hit.text.replace(HIGHLIGHT[0], "").replace(HIGHLIGHT[1], "")
        assert plain == texts[number]
        assert plain != hit.text
    assert reading.search("京東", Query()) == []


def test_one_that_reads_stores_nothing_but_what_is_derived(stores: tuple[Store, Store]) -> None:
    writing, reading = stores
    writing.put([result(1)])
    for change in (
        lambda: reading.put([result(2)]),
        lambda: reading.delete(result(1).id),
        lambda: list(reading.prune(Retention(max_bytes=0))),
    ):
        with pytest.raises(StorageError):
            change()
    assert names(writing, Query()) == [1]
    derive_all(reading)
    assert len(writing.search("number", Query())) == 1
    space = reading.analyses.open_space(MODEL, 1, 1)
    reading.analyses.embed(space.id, 1, [(1, 1.0, b"a")])
    assert writing.analyses.count(space.id) == 1
