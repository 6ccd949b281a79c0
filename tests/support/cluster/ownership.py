"""A model of one generation at the level `cluster`: its owners, their writes, and one reader.

What a server decides is the product's own code (`Outbox`). What the database does is one step per
transaction, as test_leases.py shows of the real one. Everything else may happen at any time: a
lease may be over whenever the adversary says so, since no clock is to be part of safety; a request
may be under way twice; answers get lost; servers stop for as long as they like and wake up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llcuda_net.cluster.standing import Batch, Outbox

_EMPTY: Outbox[bytes] = Outbox()
#: A record that holds the whole log, as an adoption writes it.
_WHOLE = b"="


@dataclass(frozen=True)
class Rules:
    """What holds, and, for the controls, what does not.

    Attributes:
        servers, tokens, under_way: the size of the model.
        fencing: who is fenced commits nothing.
        commit_first: tokens are shown once they are committed.
        same_number: a batch is sent again under its number.
        fence_first: a journal is read once its server is fenced.
        own_fence: who adopts must not be fenced itself.
    """

    servers: int = 2
    tokens: int = 2
    under_way: int = 2
    fencing: bool = True
    commit_first: bool = True
    same_number: bool = True
    fence_first: bool = True
    own_fence: bool = True


@dataclass(frozen=True)
class Server:
    """What a server remembers.

    Attributes:
        log: of the generation; None: it has not got it.
        durable: so many tokens of it may be shown.
        read: whose journal it has read to adopt from it, and the log there.
        knows: that it is fenced.
    """

    alive: bool = True
    knows: bool = False
    log: tuple[bytes, ...] | None = None
    durable: int = 0
    epoch: int = 0
    outbox: Outbox[bytes] = _EMPTY
    read: tuple[int, tuple[bytes, ...]] | None = None


@dataclass(frozen=True)
class State:
    """Everything.

    Attributes:
        over: whose lease is over.
        journals: numbers and records, by server.
        adopters: who has fenced each server, the last one.
        requests, answers: under way: of whom, and what.
        seen: what the reader has.
    """

    servers: tuple[Server, ...]
    journals: tuple[tuple[Batch[bytes], ...], ...]
    fenced: frozenset[int] = frozenset()
    over: frozenset[int] = frozenset()
    adopters: tuple[int | None, ...] = ()
    owner: int = 0
    epoch: int = 1
    requests: tuple[tuple[int, Batch[bytes]], ...] = ()
    answers: frozenset[tuple[int, int, bool]] = frozenset()
    seen: tuple[bytes, ...] = ()
    source: int = 0

    @property
    def log(self) -> tuple[bytes, ...]:
        """What the database has of the generation."""
        return log_of(self.journals[self.owner])


def log_of(journal: tuple[Batch[bytes], ...]) -> tuple[bytes, ...]:
    """The log that a journal has."""
    out: list[bytes] = []
    for batch in sorted(journal, key=lambda one: one.number):
        for record in batch.records:
            if record.startswith(_WHOLE):
                out = [one for one in record[1:].split(b",") if one]
            else:
                out.append(record)
    return tuple(out)


def start(rules: Rules) -> State:
    """The first server has the generation, and nothing was generated yet."""
    count = rules.servers
    servers = (Server(log=(), epoch=1), *(Server(),) * (count - 1))
    return State(servers, ((),) * count, adopters=(None,) * count)


def token(epoch: int, position: int) -> bytes:
    """A token: of another owner, it is another one."""
    return b"%d.%d" % (epoch, position)


def wrong(before: State, after: State) -> str | None:
    """What is wrong with a step."""
    if after.log[: len(before.log)] != before.log:
        return f"the database had {before.log} and has {after.log}"
    if after.seen != after.log[: len(after.seen)]:
        return f"the reader has {after.seen}, and the database {after.log}"
    for position, one in enumerate(after.log):
        if int(one.split(b".")[1]) != position:
            return f"a token is doubled or missing: {after.log}"
    return None


def is_over(state: State, rules: Rules) -> bool:
    """The reader has everything; or nobody is left who could go on."""
    left = any(one.alive and n not in state.fenced for n, one in enumerate(state.servers))
    return len(state.seen) == rules.tokens or not left


def steps(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    """All that can happen."""
    for n, server in enumerate(state.servers):
        if server.alive:
            yield from _of_server(state, rules, n, server)
            # What is on its way to it makes no difference any more.
            deaf = frozenset(answer for answer in state.answers if answer[0] != n)
            killed = _with(state, n, Server(alive=False))
            yield f"{n} is killed", replace(killed, answers=deaf)
        if n not in state.over and n not in state.fenced:
            yield f"the lease of {n} is over", replace(state, over=state.over | {n})
    for request in dict.fromkeys(state.requests):
        n, batch = request
        left = list(state.requests)
        left.remove(request)
        rest = replace(state, requests=tuple(left))
        yield f"write {batch.number} of {n} is lost", rest
        yield f"write {batch.number} of {n} is done", _execute(rest, rules, n, batch)
    for answer in state.answers:
        yield f"an answer to {answer[0]} is lost", replace(state, answers=state.answers - {answer})


def _with(state: State, n: int, server: Server) -> State:
    servers = (*state.servers[:n], server, *state.servers[n + 1 :])
    return replace(state, servers=servers)


def _of_server(state: State, rules: Rules, n: int, server: Server) -> Iterator[tuple[str, State]]:
    if n in state.over and n not in state.fenced:
        yield f"{n} renews", replace(state, over=state.over - {n})
    if server.log is not None and not server.knows:
        if len(server.log) < rules.tokens:
            new = token(server.epoch, len(server.log))
            outbox = server.outbox.add(new)
            grown = replace(server, log=(*server.log, new), outbox=outbox)
            yield f"{n} generates {new!r}", _with(state, n, grown)
        yield from _send(state, rules, n, server)
        if state.source != n:
            yield f"the reader goes to {n}", replace(state, source=n)
    if state.source == n and server.log is not None and len(state.seen) < server.durable:
        seen = (*state.seen, server.log[len(state.seen)])
        yield f"the reader gets one from {n}", replace(state, seen=seen)
    for answer in state.answers:
        if answer[0] == n:
            yield f"{n} hears of {answer[1:]}", _deliver(state, n, server, answer)
    yield from _take_over(state, rules, n, server)


def _send(state: State, rules: Rules, n: int, server: Server) -> Iterator[tuple[str, State]]:
    again = server.outbox.sent is not None
    outbox, batch = server.outbox.send()
    if batch is None or sum(one[0] == n for one in state.requests) >= rules.under_way:
        return
    if again and not rules.same_number:
        if batch.number > 2:
            return
        batch = Batch(outbox.number, batch.records)
        outbox = replace(outbox, sent=batch, number=outbox.number + 1)
    durable = server.durable
    if not rules.commit_first and server.log is not None:
        durable = len(server.log)
    sent = _with(state, n, replace(server, outbox=outbox, durable=durable))
    requests = tuple(sorted((*sent.requests, (n, batch)), key=lambda one: (one[0], one[1].number)))
    yield f"{n} sends {batch.number}", replace(sent, requests=requests)


def _execute(state: State, rules: Rules, n: int, batch: Batch[bytes]) -> State:
    """`leases.append`."""
    done = n not in state.fenced or not rules.fencing
    if done and all(one.number != batch.number for one in state.journals[n]):
        state = _journalled(state, n, batch)
    server = state.servers[n]
    if not server.alive or server.knows:  # nobody hears the answer
        return state
    return replace(state, answers=state.answers | {(n, batch.number, done)})


def _journalled(state: State, n: int, batch: Batch[bytes]) -> State:
    journals = list(state.journals)
    journals[n] = (*journals[n], batch)
    return replace(state, journals=tuple(journals))


def _deliver(state: State, n: int, server: Server, answer: tuple[int, int, bool]) -> State:
    state = replace(state, answers=state.answers - {answer})
    _, number, done = answer
    if not done:
        return _with(state, n, Server(knows=True))
    outbox, records = server.outbox.committed(number)
    if server.log is None:
        return state
    return _with(state, n, replace(server, outbox=outbox, durable=server.durable + len(records)))


def _take_over(state: State, rules: Rules, n: int, server: Server) -> Iterator[tuple[str, State]]:
    if server.read is not None and state.owner == n and server.log is None:
        _, log = server.read
        mine: Outbox[bytes] = Outbox(number=server.outbox.number + 1)
        learnt = replace(
            server, log=log, durable=len(log), epoch=state.epoch, outbox=mine, read=None
        )
        yield f"{n} knows that it has adopted", _with(state, n, learnt)
    if server.knows or server.log is not None:
        return
    for other in range(rules.servers):
        if other == n:
            continue
        adopter = state.adopters[other]
        if n not in state.fenced and _may_fence(state, n, other):
            adopters = (*state.adopters[:other], n, *state.adopters[other + 1 :])
            fenced = replace(state, fenced=state.fenced | {other}, over=state.over - {other})
            yield f"{n} fences {other}", replace(fenced, adopters=adopters)
        is_mine = other in state.fenced and adopter == n
        if server.read is None and (is_mine or not rules.fence_first):
            read = replace(server, read=(other, log_of(state.journals[other])))
            yield f"{n} reads the journal of {other}", _with(state, n, read)
        if server.read is not None and server.read[0] == other:
            if is_mine and state.owner == other and (n not in state.fenced or not rules.own_fence):
                record = _WHOLE + b",".join(server.read[1])
                moved = replace(state, owner=n, epoch=state.epoch + 1)
                whole = Batch(server.outbox.number, (record,))
                yield f"{n} adopts from {other}", _journalled(moved, n, whole)
            elif state.owner != n:
                yield f"{n} forgets what it read", _with(state, n, replace(server, read=None))


def _may_fence(state: State, n: int, other: int) -> bool:
    """`leases.fence`."""
    adopter = state.adopters[other]
    if other in state.fenced:
        return adopter != n and adopter in state.fenced
    return other in state.over
