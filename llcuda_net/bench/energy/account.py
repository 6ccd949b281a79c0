"""What a measurement is asked about energy and money, and the account of its runs."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio

from llcuda_net.bench.energy import economy
from llcuda_net.bench.energy.economy import Window
from llcuda_net.bench.energy.money import Prices
from llcuda_net.bench.energy.sampler import IDLE, Sampler, sampling


class Measured(Protocol):
    """A run: its window in seconds since `started` of trio's clock, and what came in it."""

    started: float
    begin: float
    end: float

    def rates(self) -> dict[str, Any]:
        """See `summary.rates`."""
        ...


class Account:
    """What runs took.

    Args:
        asked: False: nothing is asked, and nothing told.
    """

    def __init__(self, sampler: Sampler, prices: Prices, *, asked: bool = True) -> None:
        self.sampler = sampler
        self.prices = prices
        self._asked = asked

    def __repr__(self) -> str:
        return f"<Account of {self.sampler!r}>"

    @property
    def asked(self) -> bool:
        """Whether there is anything to be told."""
        return self._asked or self.prices != Prices()

    async def idle(self, seconds: float = IDLE) -> None:
        """See what is taken before anything is asked; at once where nothing tells it."""
        await self.sampler.idle(seconds)

    def window(self, run: Measured) -> Window:
        """The measuring window of a run."""
        seconds = max(0.0, run.end - run.begin)
        if not seconds:
            return Window(0.0, 0.0, 0.0, {})
        found = run.rates()
        return Window(
            seconds,
            found["tokens_per_s"]["value"] * seconds,
            found["requests_per_s"]["value"] * seconds,
            self.sampler.joules(run.started + run.begin, run.started + run.end),
        )

    def figures(self, runs: Sequence[Measured]) -> dict[str, Any] | None:
        """See `economy.figures`; None where nothing is asked."""
        if not self.asked:
            return None
        windows = [self.window(run) for run in runs]
        return economy.figures(windows, self.prices, economy.idle(self.sampler))

    def repetitions(self, runs: Sequence[Measured]) -> dict[str, list[float]]:
        """One value a run of what runs are compared by."""
        return economy.per_window([self.window(run) for run in runs], self.prices)

    def point(self, run: Measured) -> dict[str, Any] | None:
        """See `economy.of_point`; None where nothing is asked."""
        if not self.asked:
            return None
        return economy.of_point(self.sampler, self.window(run), self.prices)

    def machine(self, runs: Sequence[Measured]) -> dict[str, Any] | None:
        """See `economy.machine`; None where nothing is asked."""
        if not self.asked:
            return None
        return economy.machine(self.sampler, [self.window(run) for run in runs], self.prices)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked.

    Attributes:
        energy: read the meters of this machine, where what is measured is on it.
        prices: what is paid.
    """

    energy: bool = False
    prices: Prices = field(default_factory=Prices)

    @asynccontextmanager
    async def account(self, addresses: Sequence[str]) -> AsyncIterator[Account]:
        """An account, whose meters are read until the block ends.

        Args:
            addresses: of what is measured.
        """
        local = self.energy and all([await here(address) for address in addresses])
        async with sampling(local=local, wanted=self.energy) as sampler:
            yield Account(sampler, self.prices, asked=self.energy)


async def here(address: str) -> bool:
    """Whether an address, HOST:PORT or a URL, is of this machine."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return False
    if not host:
        return False
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_own(str(where[0])) for *_, where in found)


def _own(ip: str) -> bool:
    """Whether an address is one of this machine's: only there something can listen."""
    bare = ip.partition("%")[0]
    if ipaddress.ip_address(bare).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((bare, 0))
    except OSError:
        return False
    return True
