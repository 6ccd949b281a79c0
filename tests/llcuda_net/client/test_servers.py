"""A client with a list of servers: they are tried in turn, and any of them goes on.

No sockets and no real time. What is dialled, by its address, is a server in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

import llcuda_protocol as wire
from llcuda_net.client import connect
from llcuda_net.client import dial as dialling
from llcuda_net.client.dial import addresses_of
from llcuda_net.errors import ConfigError, ConnectError, Unauthorized
from llcuda_net.util.address import Address
from tests.support.client.attach_server import Lasting
from tests.support.client.scripted_server import Peer

Clock = trio.testing.MockClock
A, B, C = Address("a", 9000), Address("b", 9001), Address("c", 9000)
WORDS = "hold one two three"


class Network:
    """Servers by their addresses.

    Attributes:
        dialled: the addresses that were tried, in turn.
        silent: those that take no connection and refuse none.
    """

    def __init__(self, **servers: Lasting) -> None:
        self.servers = servers
        self.dialled: list[str] = []
        self.silent: set[str] = set()

    async def dial(self, address: Address, context: object) -> trio.abc.Stream:
        self.dialled.append(address.host)
        if address.host in self.silent:
            await trio.sleep_forever()
        return await self.servers[address.host].dial()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network(a=Lasting(), b=Lasting(), c=Lasting())
    monkeypatch.setattr(dialling, "dial", found.dial)
    return found


def test_the_ways_to_name_servers() -> None:
    assert addresses_of("a") == (A,)
    assert addresses_of(A) == (A,)
    assert addresses_of("a:9000, b:9001") == (A, B)
    assert addresses_of(["a", B, "a:9000,c"]) == (A, B, C)
    empty: list[str] = []
    for wrong in ("", "a:9000,", "a,http://b", empty):
        with pytest.raises(ConfigError):
            addresses_of(wrong)


async def test_the_first_that_can_be_reached_is_used(network: Network) -> None:
    network.servers["a"].down = True
    async with connect("a:9000,b:9001,c:9000") as client:
        assert (await client.complete(raw="one two")).text == "one two"
        assert client.server == "b:9001"
    assert network.dialled == ["a", "b"]


async def test_one_that_does_not_answer_leaves_time_for_the_next(
    network: Network, autojump_clock: Clock
) -> None:
    network.silent.add("a")
    async with connect(["a:9000", "b:9001"], timeout=10) as client:
        assert trio.current_time() == pytest.approx(5, abs=0.1)
        assert client.server == "b:9001"


async def test_one_that_takes_nobody_now_is_passed_over(network: Network) -> None:
    def refuse(peer: Peer) -> wire.Frame | None:
        return wire.Error(0, "shutting_down", "not now", retry=True)

    network.servers["a"].greeting = refuse
    async with connect("a,b:9001") as client:
        assert client.server == "b:9001"
        assert await client.status() == {"connections": 1}


async def test_a_wrong_token_is_wrong_everywhere(network: Network) -> None:
    network.servers["a"].greeting = lambda peer: wire.Error(0, "unauthorized", "wrong token")
    with pytest.raises(Unauthorized, match="wrong token"):
        async with connect("a,b:9001"):
            pass
    assert network.dialled == ["a"]


async def test_what_each_of_them_said_is_told(network: Network, autojump_clock: Clock) -> None:
    network.servers["a"].down = True
    network.silent.add("b")
    with pytest.raises(ConnectError) as caught:
        async with connect("a,b:9001", timeout=10):
            pass
    assert str(caught.value) == (
        "no server can be reached: cannot connect to box:9000: connection refused; "
        "b:9001 does not answer"
    )


async def test_all_refuse_to_greet(network: Network) -> None:
    for server in network.servers.values():
        server.greeting = lambda peer: wire.Error(0, "too_many_connections", "full", retry=True)
    with pytest.raises(Exception, match="full"):
        async with connect("a,b:9001,c"):
            pass
    assert network.dialled == ["a", "b", "c"]


async def read_over_a_loss(
    network: Network, lose: Callable[[], object], notes: list[str]
) -> tuple[str, str]:
    """Read a generation at A, of which all servers have the same log; what came, and from where."""
    a, b = network.servers["a"], network.servers["b"]
    b.logs = a.logs  # they share a database
    async with (
        connect("a,b:9001", on_note=notes.append) as client,
        client.generate(raw=WORDS) as stream,
    ):
        assert await anext(stream) == "hold"
        lose()
        await a.lose()
        b.go_on(" four", reason="stop")
        async for _ in stream:
            pass
        return stream.text, client.server


async def test_a_stream_goes_on_at_the_next_server(network: Network, autojump_clock: Clock) -> None:
    notes: list[str] = []
    text, server = await read_over_a_loss(network, lambda: None, notes)
    assert (text, server) == (f"{WORDS} four", "b:9001")
    assert network.dialled == ["a", "b"]  # A is there again, and need not be
    (attach,) = network.servers["b"].of(wire.Attach)
    assert attach.first > 0


async def test_the_servers_are_tried_round_and_round(
    network: Network, autojump_clock: Clock
) -> None:
    """Until one is there: of each attempt, none is left out."""

    def both_go() -> None:
        for server in network.servers.values():
            server.down = True
        trio.lowlevel.spawn_system_task(one_comes_back)

    async def one_comes_back() -> None:
        await trio.sleep(3)
        network.servers["b"].down = False

    text, server = await read_over_a_loss(network, both_go, [])
    assert (text, server) == (f"{WORDS} four", "b:9001")
    assert set(network.dialled[1:-1]) == {"a", "b"}


async def test_a_server_that_lost_its_lease_is_left(
    network: Network, autojump_clock: Clock
) -> None:
    """It has the connection still, and nothing to say on it."""
    a, b = network.servers["a"], network.servers["b"]
    b.logs = a.logs
    async with connect("a,b:9001") as client, client.generate(raw=WORDS) as stream:
        assert await anext(stream) == "hold"
        a.refusals = [("lease_lost", True)]
        b.refusals = []
        for peer in a.peers:
            await peer.send(wire.Error(1, "lease_lost", "others take over", retry=True))
        b.go_on(reason="stop")
        async for _ in stream:
            pass
        assert stream.text == WORDS
        assert client.server == "b:9001"
