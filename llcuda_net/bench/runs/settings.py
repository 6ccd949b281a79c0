"""What a measurement is asked to do, beyond the loads that are its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from llcuda_net.batch import post_process
from llcuda_net.batch.record import Record
from llcuda_net.batch.targets.interface import PostProcess, Target
from llcuda_net.batch.targets.opening import Api, open_target
from llcuda_net.batch.targets.token_check import shorter
from llcuda_net.bench.energy.account import Wanted
from llcuda_net.bench.runs.stack import Stack, running
from llcuda_net.bench.workload import catalogue, prompts
from llcuda_net.bench.workload.fitting import What, Window

#: Tokens of an answer where nobody says otherwise.
DEFAULT_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server: see `open_target`.

    Attributes:
        token, tls, tls_ca, connections: for an llcuda-server.
        api_key, api, model: for a server with a URL.
        embeds: texts are embedded: it need not answer chats.
    """

    connections: int = 1
    token: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    api_key: str | None = None
    api: Api = "auto"
    model: str | None = None
    embeds: bool = False

    def open(self, server: str) -> AbstractAsyncContextManager[Target]:
        """The target at an address, for the length of a block."""
        return open_target(
            server,
            connections=self.connections,
            token=self.token,
            tls=self.tls,
            tls_ca=self.tls_ca,
            api_key=self.api_key,
            api=self.api,
            model=self.model,
            prepare="tell" if self.embeds else "ask",
        )


@dataclass(frozen=True, slots=True)
class Start:
    """What is started to be measured: an upstream, and an llcuda-server before it.

    Attributes:
        kind: its name, for the document.
        slots: of the upstream.
        rate: tokens/s of each slot of an upstream that is a command.
        durability: of the llcuda-server.
        upstream: the command of an upstream; None: the built-in engine with the demonstration
            model. It is called with --slots, --rate and --seed besides, says "listening on
            HOST:PORT", and ends when its stdin is closed.
    """

    kind: str
    slots: int = 4
    rate: float = 200.0
    durability: str = "disk"
    upstream: Sequence[str] | None = None

    def running(self, seed: int) -> AbstractAsyncContextManager[Stack]:
        """Both of them, for the length of a block."""
        command = None
        if self.upstream is not None:
            command = [*self.upstream, "--rate", str(self.rate), "--slots", str(self.slots)]
            command += ["--seed", str(seed)]
        return running(slots=self.slots, durability=self.durability, upstream=command)


@dataclass(frozen=True, slots=True)
class Request:
    """What every request asks.

    Attributes:
        prompts: one of `prompts.KINDS`.
        max_tokens: of each answer; of a workload or trace it is the cap. None: 64, or no cap.
        natural_ends: let answers end where the model ends them.
        cache_prompt: let the upstream reuse what it has read.
        timeout: seconds, then a request is given up.
        seed: of schedule, prompts and sampling.
        workload: in place of prompts, NAME or NAME@VERSION.
        trace: in place of prompts and schedule.
        max_prompt, think: of workloads and traces, see `What`.
    """

    prompts: str = prompts.DEFAULT
    max_tokens: int | None = None
    natural_ends: bool = False
    cache_prompt: bool = False
    timeout: float = 120.0
    seed: int = 1
    workload: str | None = None
    trace: Window | None = None
    max_prompt: int | None = None
    think: float = 1.0

    @property
    def what(self) -> What:
        """What to send, as it was asked for."""
        return What(
            prompts=self.prompts,
            workload=self.workload,
            trace=self.trace,
            max_tokens=self.max_tokens,
            max_prompt=self.max_prompt,
            think=self.think,
            seed=self.seed,
        )

    @property
    def named(self) -> str | None:
        """The workload by name and version; None: there is none."""
        return None if self.workload is None else str(catalogue.find(self.workload))

    @property
    def embeds(self) -> bool:
        """Whether texts are embedded, and nothing is answered."""
        return self.workload is not None and catalogue.find(self.workload).answer is None

    def shorter(self, records: Iterable[Record]) -> list[str]:
        """The line for answers that were shorter than asked; a workload's lengths have a table."""
        if self.workload is not None or self.trace is not None:
            return []
        return shorter(records, self.max_tokens or DEFAULT_TOKENS, natural=self.natural_ends)

    def as_dict(self) -> dict[str, Any]:
        """For a document: what runs must have in common to be compared."""
        prompts = self.workload is None and self.trace is None
        return {
            "prompts": self.prompts if prompts else None,
            "workload": self.named,
            "trace": None if self.trace is None else self.trace.as_dict(),
            "max_tokens": (self.max_tokens or DEFAULT_TOKENS) if prompts else self.max_tokens,
            "max_prompt": self.max_prompt,
            "think": None if self.workload is None else self.think,
            "natural_ends": self.natural_ends,
            "cache_prompt": self.cache_prompt,
            "timeout": self.timeout,
        }

    @property
    def params(self) -> dict[str, Any]:
        """The sampling parameters; those of a workload's answers come with each."""
        return {
            "n_predict": self.max_tokens or DEFAULT_TOKENS,
            "ignore_eos": not self.natural_ends,
            "cache_prompt": self.cache_prompt,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Kernels:
    """Work on each answer by llcuda_kernels.

    Attributes:
        work: numbers for `spin`; None: not that.
        iterations: rounds.
        post: run `post`, too.
    """

    work: int | None = None
    iterations: int = 1000
    post: bool = False

    def prepare(self) -> tuple[PostProcess | None, str]:
        """The work, compiled, and a description of it; None and "" where there is none."""
        if self.work is None and not self.post:
            return None, ""
        return post_process.prepare(self.work, self.iterations, self.post)


@dataclass(frozen=True, slots=True)
class Settings:
    """What all measurements are asked to do.

    Attributes:
        server: the address; not looked at where `start` is given.
        start: what to start and measure.
        max_lag: greatest p99 of the dispatch lag of a valid run, in seconds.
        self_test: measure first what this client can do.
        tokenizer: what tokens are checked by, see `open_tokenizer`; None: what the server has.
        energy: what is asked about energy and money.
    """

    server: str
    access: Access
    start: Start | None
    request: Request
    kernels: Kernels
    max_lag: float
    self_test: bool
    tokenizer: str | None = None
    energy: Wanted = field(default_factory=Wanted)

    def as_dict(self) -> dict[str, Any]:
        """For a document: what runs must have in common to be compared."""
        return {
            **self.request.as_dict(),
            "start": self.start.kind if self.start else None,
            "slots": self.start.slots if self.start else None,
            "connections": self.access.connections,
            "api": self.access.api,
            "model": self.access.model,
            "cuda": [self.kernels.work, self.kernels.iterations, self.kernels.post],
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stack]:
        """Where the server is; it is started first, and ends with the block, where asked for.

        Raises:
            EngineError, LlcudaError: it did not start.
        """
        if self.start is None:
            yield Stack(self.server, None, self.access.api_key)
            return
        async with self.start.running(self.request.seed) as stack:
            yield stack

    def with_key(self, api_key: str | None) -> Access:
        """The access with this key in place of its own, where there is one."""
        return replace(self.access, api_key=api_key or self.access.api_key)
