"""What users were served elsewhere."""

from __future__ import annotations

from llcuda_net.cluster.owners.loads import Load, OtherLoad, Served
from llcuda_net.cluster.owners.sharing import Sharing, renamed, running_elsewhere


def load(server: int, **tokens: float) -> OtherLoad:
    served = tuple(Served("m", 1, user, count) for user, count in tokens.items())
    return OtherLoad(server, Load(served=served), 0.1)


def heard(sharing: Sharing, *loads: OtherLoad) -> dict[str, float]:
    return {one.user: one.tokens for one in sharing.heard(loads)}


def test_only_what_comes_after_the_first_report_counts() -> None:
    sharing = Sharing()
    assert heard(sharing, load(2, ann=1000)) == {}
    assert heard(sharing, load(2, ann=1030, bob=5), load(3, ann=7)) == {"ann": 30, "bob": 5}
    assert heard(sharing, load(2, ann=1030, bob=5), load(3, ann=9)) == {"ann": 2}


def test_a_lost_report_costs_nothing_and_an_idle_user_need_not_be_in_each() -> None:
    sharing = Sharing()
    heard(sharing, load(2, ann=10))
    assert heard(sharing, load(2)) == {}
    assert heard(sharing, load(2, ann=25)) == {"ann": 15}
    assert heard(sharing, load(2, ann=20)) == {}  # it never goes back
    assert heard(sharing) == {}
    assert heard(sharing, load(2, ann=90)) == {}  # heard anew


def test_those_of_several_are_added() -> None:
    sharing = Sharing()
    heard(sharing, load(2), load(3))
    assert heard(sharing, load(2, ann=3), load(3, ann=4, bob=1)) == {"ann": 7, "bob": 1}


def test_models_are_named_as_they_are_here() -> None:
    assert renamed([Served("m", 1, "ann", 5), Served("x", 1, "ann", 5)], {"m": "model-1"}) == [
        Served("model-1", 1, "ann", 5)
    ]


def test_what_runs_elsewhere_is_counted() -> None:
    loads = [OtherLoad(2, Load(running={"ann": 2}), 0), OtherLoad(3, Load(running={"ann": 1}), 0)]
    assert running_elsewhere(loads) == {"ann": 3}
