"""What a server does about its upstreams, look after look."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from llcuda_net.cluster.owners.claims import Claim
from llcuda_net.cluster.owners.loads import Load, OtherLoad
from llcuda_net.cluster.owners.plan import PATIENCE, Mine, Planner, Steps

A, B = "http://a:8080", "http://b:8080"
BOTH = {A: Mine("m"), B: Mine("m")}


def claim(url: str, server: int | None, wanted_by: int | None = None, wanted: float = 0) -> Claim:
    return Claim(url, server, 1, server is not None and server > 0, wanted_by, wanted)


def other(server: int = 2, reaches: Collection[str] = (A, B)) -> OtherLoad:
    return OtherLoad(server, Load(reaches=dict.fromkeys(reaches, "m")), 0.1)


def plan(
    *claims: Claim, mine: Mapping[str, Mine] = BOTH, others: Collection[OtherLoad] = ()
) -> Steps:
    return Planner().plan(1, mine, claims, [*others])


def test_alone_it_claims_all() -> None:
    assert plan().claim == (A, B)
    assert plan(claim(A, None), claim(B, -7)).claim == (A, B)  # one given, one of a dead server
    assert plan(claim(A, 1), claim(B, 1)) == Steps(use=frozenset((A, B)))


def test_what_it_does_not_reach_it_keeps_while_nobody_else_does() -> None:
    away = {A: Mine("m", reached=False), B: Mine("m")}
    assert plan(claim(A, 1), claim(B, 1), mine=away).use == {A, B}
    assert plan(mine=away).claim == (A, B)


def test_of_what_another_one_has_it_asks_for_its_part() -> None:
    steps = plan(claim(A, 2), claim(B, 2), others=[other()])
    assert (len(steps.ask), len(steps.use), steps.claim) == (1, 0, ())
    kept = plan(claim(A, 2), claim(B, 1), others=[other()])
    assert kept == Steps(use=frozenset((B,)))
    assert plan(claim(A, 2, wanted_by=1), claim(B, 1), others=[other()]).withdraw == (A,)


def test_an_idle_one_is_given_to_who_asks_and_ought_to_have_it() -> None:
    mine = [claim(A, 1), claim(B, 1)]
    assert plan(*mine, others=[other()]).use == {A, B}  # nobody has asked yet
    (wanted,) = Planner().plan(2, BOTH, mine, [other(1)]).ask
    asked = [claim(url, 1, wanted_by=2 if url == wanted else None) for url in (A, B)]
    steps = plan(*asked, others=[other()])
    assert steps.give == (wanted,)
    assert steps.use == {A, B} - {wanted}
    wrong = [claim(url, 1, wanted_by=2 if url != wanted else None) for url in (A, B)]
    assert plan(*wrong, others=[other()]).give == ()


def test_a_busy_one_is_used_until_patience_is_over() -> None:
    asked = [claim(A, 1, 2), claim(B, 1, 2)]
    (wanted,) = plan(*asked, others=[other()]).give

    def steps(seconds: float, **state: bool) -> tuple[bool, bool]:
        found = plan(
            *(claim(url, 1, 2, seconds) for url in (A, B)),
            mine=BOTH | {wanted: Mine("m", **state)},
            others=[other()],
        )
        return wanted in found.use, wanted in found.give

    assert steps(0, used=True) == (True, False)
    assert steps(PATIENCE, used=True) == (False, False)  # it drains
    assert steps(PATIENCE) == (False, True)
    assert steps(PATIENCE, needed=True) == (True, False)
    assert steps(PATIENCE, used=True, needed=True) == (True, False)


def test_one_that_only_others_reach_is_given_as_soon_as_it_is_asked_for() -> None:
    away = BOTH | {A: Mine("m", reached=False, needed=True)}
    steps = plan(claim(A, 1, wanted_by=2), claim(B, 1), mine=away, others=[other()])
    assert steps.give == (A,)
    used = BOTH | {A: Mine("m", reached=False, used=True)}
    steps = plan(claim(A, 1, wanted_by=2), claim(B, 1), mine=used, others=[other()])
    assert steps.use == {B}
    assert not steps.give


def test_one_that_is_in_the_settings_no_more_is_given() -> None:
    steps = plan(claim(A, 1), claim(B, 1), claim("http://gone:1", 2), mine={A: Mine("m")})
    assert steps == Steps(use=frozenset((A,)), give=(B,))


def test_what_is_another_ones_part_is_claimed_where_that_one_does_not() -> None:
    planner = Planner()
    claims = [claim(A, None), claim(B, 1)]  # A is the other one's part
    found = [planner.plan(1, BOTH, claims, [other()]).claim for _ in range(6)]
    assert found == [()] * 5 + [(A,)]


def test_a_server_that_stops_gives_all_as_soon_as_it_is_idle_and_takes_nothing() -> None:
    used = {A: Mine("m", used=True, needed=True), B: Mine("m")}
    asked = [claim(A, 1, wanted_by=2), claim(B, 1, wanted_by=2)]
    steps = Planner().plan(1, used, asked, [other()], leaving=True)
    assert (steps.use, steps.give) == (frozenset((A,)), (B,))
    # The other one sees that none of them is a part of this server.
    assert Planner().plan(2, BOTH, [claim(A, 1), claim(B, 1)], [other(1, ())]).ask == (A, B)
    free = Planner().plan(1, BOTH, [claim(A, None), claim(B, 2)], [other()], leaving=True)
    assert free == Steps()
    assert Planner().plan(1, BOTH, [claim(A, 1), claim(B, 1)], [], leaving=True).use == {A, B}
