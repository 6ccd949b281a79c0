"""What a measurement asks about energy, and which servers are on this machine."""

from __future__ import annotations

import socket
from array import array

import pytest

from llcuda_net.batch.record import Outcome, Record
from llcuda_net.bench.energy import economy
from llcuda_net.bench.energy.account import Account, Wanted, here
from llcuda_net.bench.energy.money import Prices
from llcuda_net.bench.energy.sampler import Sampler
from llcuda_net.bench.runs.once import Once
from llcuda_net.bench.workload.schedules import closed


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1:9000", True),
        ("localhost:9000", True),
        ("http://127.0.0.1:8080/v1", True),
        ("https://user:pw@[::1]:8080", True),
        ("192.0.2.1:9000", False),  # for documentation: nobody's
        ("http://192.0.2.1", False),
        ("http://no-such-host.invalid", False),
        ("", False),
        ("http://[", False),
    ],
)
async def test_which_servers_are_here(
    address: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "::1": "::1"}

    def resolve(host: bytes | str, *args: object, **more: object) -> list[object]:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "no-such-host.invalid":
            raise socket.gaierror("unknown")
        ip = known.get(name, name)
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (ip, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert await here(address) is own


async def test_a_server_elsewhere_costs_its_hours_and_tells_no_energy() -> None:
    prices = Prices(hour=3.6, currency="EUR")
    async with Wanted(True, prices).account(["192.0.2.1:9000", "127.0.0.1:1"]) as account:
        await account.idle()
    chunks = array("d", [1.0 + i / 100 for i in range(100)])
    record = Record(0, 1.0, sent=1.0, chunks=chunks, ended=2.0, outcome=Outcome.DONE, tokens=100)
    run = Once([record], closed(1, 3.0), 1.0, 3.0, 0.0, 1.0, 3.0, 5.0)
    found = account.figures([run])
    assert found is not None
    assert found["joules_per_token"] is None
    assert found["cost_per_million_tokens"]["value"] == pytest.approx(20.0)  # 100 tokens in 2 s
    machine = account.machine([run])
    assert machine is not None
    assert machine["missing"] == [{"kind": "all", "why": "the server is on another machine"}]
    assert account.repetitions([run]) == {"cost_per_million_tokens": [pytest.approx(20.0)]}


async def test_who_asks_nothing_is_told_nothing() -> None:
    async with Wanted().account(["127.0.0.1:1"]) as account:
        assert account.figures([]) is None
        assert account.machine([]) is None
        empty = Once([], closed(1, 1.0), 1.0, 1.0, 0.0, 1.0, 1.0, 0.0)
        assert account.point(empty) is None


def test_points_of_a_curve_are_repeats() -> None:
    sampler = Sampler()
    windows = [economy.Window(10.0, tokens, 10, {}) for tokens in (500.0, 1000.0, 2000.0)]
    prices = Prices(hour=3.6)
    points = [economy.of_point(sampler, window, prices) for window in windows]
    found = economy.of_points(points)
    assert found is not None
    assert found["cost_per_million_tokens"]["value"] == pytest.approx((20 + 10 + 5) / 3)
    assert economy.of_points([*points, None]) is None
    assert economy.together([None, None]) is None
    whole = economy.together(points)
    assert whole is not None
    assert (whole["devices"], whole["idle_watts"]) == ([], None)
    assert Account(sampler, prices).prices == Prices.from_dict(whole["prices"])
