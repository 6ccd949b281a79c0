"""Who is to have which upstream."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.cluster.owners.spread import spread, weight

URLS = [f"http://{name}:8080" for name in "abcdef"]
ALIKE = dict.fromkeys(URLS, "m")


def everywhere(*servers: int) -> dict[int, list[str]]:
    return dict.fromkeys(servers, URLS)


def counts(found: dict[str, int]) -> dict[int, int]:
    return dict(Counter(found.values()))


def test_each_has_his_part_and_the_hash_decides_which() -> None:
    found = spread(everywhere(1, 2), {}, ALIKE)
    assert counts(found) == {1: 3, 2: 3}
    alone = spread(everywhere(7), {}, ALIKE)
    assert alone == dict.fromkeys(URLS, 7)
    few = spread(dict.fromkeys(range(1, 9), URLS[:1]), {}, ALIKE)
    best = max(range(1, 9), key=lambda server: weight(URLS[0], server))
    assert few == {URLS[0]: best}
    assert spread({}, {}, {}) == spread({1: []}, {}, {}) == {}


def test_who_joins_gets_his_part_and_nothing_else_moves() -> None:
    before = spread(everywhere(1, 2), {}, ALIKE)
    after = spread(everywhere(1, 2, 3), before, ALIKE)
    assert counts(after) == {1: 2, 2: 2, 3: 2}
    assert all(after[url] in (before[url], 3) for url in URLS)
    assert spread(everywhere(1, 2, 3), after, ALIKE) == after


def test_what_a_server_leaves_behind_goes_to_the_others_and_nothing_else_moves() -> None:
    before = spread(everywhere(1, 2, 3), {}, ALIKE)
    after = spread(everywhere(1, 3), before, ALIKE)
    assert counts(after) == {1: 3, 3: 3}
    assert all(after[url] == before[url] for url in URLS if before[url] != 2)


def test_an_upstream_goes_to_one_who_reaches_it() -> None:
    reach = {1: URLS[:1], 2: URLS}
    assert spread(reach, dict.fromkeys(URLS, 1), ALIKE) == {
        url: 1 if url == URLS[0] else 2 for url in URLS
    }
    assert spread({1: [], 2: URLS}, dict.fromkeys(URLS, 1), ALIKE) == dict.fromkeys(URLS, 2)


def test_of_each_model_a_server_has_rather_few() -> None:
    models = {url: "m" if place < 3 else "n" for place, url in enumerate(URLS)}
    before = {url: 1 if models[url] == "m" else 2 for url in URLS}
    after = spread(everywhere(1, 2, 3), before, models)
    assert counts(after) == {1: 2, 2: 2, 3: 2}
    assert {models[url] for url, server in after.items() if server == 3} == {"m", "n"}
    both = spread({1: URLS[:4], 2: URLS[:4]}, {}, dict(zip(URLS, "mmnn", strict=False)))
    assert sorted((server, models_of) for server, models_of in _by_model(both)) == [
        (1, "m"),
        (1, "n"),
        (2, "m"),
        (2, "n"),
    ]


def _by_model(found: dict[str, int]) -> list[tuple[int, str]]:
    models = dict(zip(URLS, "mmnn", strict=False))
    return [(server, models[url]) for url, server in found.items()]


def test_engines_of_a_servers_own_count() -> None:
    found = spread(everywhere(1, 2), {}, ALIKE, {1: 2})
    assert counts(found) == {1: 2, 2: 4}


@given(
    st.dictionaries(st.integers(1, 5), st.sets(st.sampled_from(URLS)), max_size=5),
    st.dictionaries(st.sampled_from(URLS), st.integers(1, 6)),
    st.dictionaries(st.sampled_from(URLS), st.sampled_from("mn")),
)
def test_all_are_placed_with_somebody_who_reaches_them_and_stay(
    reach: dict[int, set[str]], owners: dict[str, int], models: dict[str, str]
) -> None:
    found = spread(reach, owners, models)
    assert found.keys() == {url for urls in reach.values() for url in urls}
    assert all(url in reach[server] for url, server in found.items())
    able = [server for server, urls in reach.items() if urls]
    if all(reach[server] == reach[able[0]] for server in able):
        sizes = [counts(found).get(server, 0) for server in able]
        assert max(sizes, default=0) - min(sizes, default=0) <= 1
        assert spread(reach, found, models) == found
