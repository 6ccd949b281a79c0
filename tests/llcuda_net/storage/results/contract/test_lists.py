"""Lists of any store, by every combination of filters, from either end."""

from __future__ import annotations

from llcuda_net.storage.results.interface import Query, Store
from tests.support.storage.queries import every_query, mixed
from tests.support.storage.records import START, result


def test_every_combination_of_filters_gives_what_it_says(store: Store) -> None:
    store.put(mixed(60))
    everything = sorted(
        ((one.created, n, one) for n, one in enumerate(mixed(60))), key=lambda row: row[:2]
    )
    places = {one.id: (created, n) for created, n, one in everything}
    for query in every_query(limit=7):
        wanted = [
            (place, one)
            for *place, one in everything
            if query.id in (None, one.id)
            and query.owner in (None, one.owner)
            and query.model in (None, one.model["name"])
            and (not query.states or one.state in query.states)
            and (query.since is None or one.created >= query.since)
            and (query.until is None or one.created < query.until)
        ]
        at = None if query.after is None else [*places[query.after]]
        newest = [one.id for place, one in reversed(wanted) if at is None or place < at]
        assert [one.id for one in store.find(query)] == newest[:7], query
        oldest = [one.id for place, one in wanted if at is None or place > at]
        assert [one.id for one in store.export(query)] == oldest[:7], query


def test_a_walk_gives_all_in_the_order_of_a_list(store: Store) -> None:
    # Half of them at one time each: a page may end between two.
    store.put([result(n, tokens=1, created=START + n // 2) for n in range(600)])
    wanted = [result(n).id for n in reversed(range(600))]
    assert [one.id for one in store.walk(Query(limit=1))] == wanted
    assert [one.id for one in store.find(Query(limit=None))] == wanted
    ascending = [one.id for one in store.find(Query(limit=None, ascending=True))]
    assert ascending == wanted[::-1]
    after = Query(limit=3, ascending=True, after=result(9).id)
    assert [one.id for one in store.find(after)] == [result(n).id for n in (10, 11, 12)]
    assert store.find(Query(after="nothing")) == []
    assert list(store.export(Query(after="nothing"))) == []


def test_what_no_result_can_have_finds_nothing(store: Store) -> None:
    store.put([result(1)])
    for odd in ("a\0b", "none"):
        assert store.get(odd) is None
        assert store.states([odd]) == {}
        assert store.missing([odd]) == {odd}
        assert store.find_by_key(odd, "") is None
        assert store.find(Query(id=odd)) == []
        assert store.find(Query(owner=odd)) == []
        assert store.find(Query(states=[odd])) == []
        assert store.find(Query(model=odd)) == []
        assert store.delete(odd) is None
