"""What a server does about its upstreams this second: a pure function of what it sees.

    nobody has it --its part--> claim
    another one has it --its part--> ask for it --that one gives it--> claim
    it has it, another one asks for it --no slot in use--> give it
                                      --PATIENCE is over--> use it no more, and give it then

Who gives an upstream uses it no more before it says so in the database, and who claims it uses it
only when the claim is committed: so it is asked by one server at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from llcuda_net.cluster.owners.claims import Claim
from llcuda_net.cluster.owners.loads import OtherLoad
from llcuda_net.cluster.owners.spread import spread

#: Seconds for which who has an upstream may go on with what comes, after another one has asked.
PATIENCE = 30.0
#: Looks for which one may be nobody's before others than its rightful owner claim it.
_FORSAKEN = 5


@dataclass(frozen=True)
class Mine:
    """An upstream of this server's settings.

    Attributes:
        model: the name of its model; empty: not known.
        reached: it answers this server.
        used: slots of it are in use here.
        needed: something waits here that no other upstream of this server can serve.
    """

    model: str = ""
    reached: bool = True
    used: bool = False
    needed: bool = False


@dataclass(frozen=True)
class Steps:
    """What to do.

    Attributes:
        use: upstreams to use, of those that this server has.
        claim, give, ask, withdraw: as the statements of these names.
    """

    use: frozenset[str] = frozenset()
    claim: tuple[str, ...] = ()
    give: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()


@dataclass
class Planner:
    """Decides from look to look.

    Attributes:
        forsaken: how many looks ago each upstream that is nobody's was last somebody's.
    """

    forsaken: dict[str, int] = field(default_factory=dict)

    def plan(
        self,
        me: int,
        mine: Mapping[str, Mine],
        claims: Sequence[Claim],
        loads: Sequence[OtherLoad],
        held: int = 0,
        *,
        leaving: bool = False,
    ) -> Steps:
        """What to do now.

        Args:
            me: this server's number.
            mine: the upstreams of its settings, by URL.
            loads: of the other live servers.
            held: as of Load.
            leaving: this server stops: no part is its own.
        """
        known = {one.url: one for one in claims}
        parts = _parts(me, {} if leaving else mine, claims, loads, held)
        use, claim, give, ask, withdraw = set(), [], [], [], []
        free: dict[str, int] = {}
        for url, here in mine.items():
            found = known.get(url)
            owner = None if found is None or not found.live else found.server
            part = parts.get(url, owner)
            wanted_by = None if found is None else found.wanted_by
            if owner == me:
                assert found is not None
                goes = part not in (None, me) and part == wanted_by
                patient = here.reached and (here.needed or found.wanted < PATIENCE)
                if not goes or (patient and (here.used or here.needed)):
                    use.add(url)
                elif not here.used:
                    give.append(url)
            elif leaving:
                continue
            elif owner is None:
                free[url] = self.forsaken.get(url, 0) + 1
                if part in (None, me) or (free[url] > _FORSAKEN and here.reached):
                    claim.append(url)
            elif part == me:
                ask.append(url)
            elif wanted_by == me:
                withdraw.append(url)
        # What is in the settings no more is for those who have it there.
        give += [url for url, one in known.items() if one.server == me and url not in mine]
        self.forsaken = free
        return Steps(frozenset(use), *map(tuple, (claim, give, ask, withdraw)))


def _parts(
    me: int,
    mine: Mapping[str, Mine],
    claims: Sequence[Claim],
    loads: Sequence[OtherLoad],
    held: int,
) -> dict[str, int]:
    reach: dict[int, Collection[str]] = {one.server: one.load.reaches for one in loads}
    reach[me] = [url for url, here in mine.items() if here.reached]
    models = {url: here.model for url, here in mine.items()}
    for one in sorted(loads, key=lambda other: -other.server):
        models.update({url: model for url, model in one.load.reaches.items() if model})
    owners = {one.url: one.server for one in claims if one.live and one.server in reach}
    engines = {one.server: one.load.held for one in loads} | {me: held}
    return spread(reach, {url: o for url, o in owners.items() if o is not None}, models, engines)
