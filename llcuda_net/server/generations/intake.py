"""From a request to a generation that runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import structlog

from llcuda_net.config.settings import Settings
from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest
from llcuda_net.generation import request as requests
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.memory import sizes
from llcuda_net.generation.memory.budget import MemoryBudget
from llcuda_net.generation.persistence import Persistence
from llcuda_net.generation.registry import Registry
from llcuda_net.generation.runner import Runner
from llcuda_net.server.generations.launcher import Launcher
from llcuda_net.server.generations.previous import following
from llcuda_net.storage.records import Result
from llcuda_net.telemetry.observers import ServerState, Watches
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import Generate

log = structlog.get_logger(__name__)


class AnyServer(Protocol):
    """Begins generations where they wait least; see Cluster."""

    async def begin(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None,
        previous: Result | None,
        id_: str | None,
        *,
        here: bool,
    ) -> Generation:
        """As `Intake.begin`; raises RequestError."""


class Intake:
    """Takes requests.

    Args:
        pool: has the models.
        persistence: says at which level a generation is kept.
        registry: knows the keys of those that run.
        budget: of the memory that they take.
        runner, launcher: run them.
        standing: counts the streams that are open.
        watch: told of each request.
        check_open: raises RequestError where the server takes none.
        cluster: the servers on which a request may begin; None: this one alone.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        persistence: Persistence,
        registry: Registry,
        budget: MemoryBudget,
        runner: Runner,
        launcher: Launcher,
        *,
        standing: ServerState,
        watch: Watches,
        check_open: Callable[[], None],
        cluster: AnyServer | None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._persistence = persistence
        self._registry = registry
        self._budget = budget
        self._runner = runner
        self._launcher = launcher
        self._standing = standing
        self._watch = watch
        self._check_open = check_open
        self._cluster = cluster

    def __repr__(self) -> str:
        return f"<Intake of {self._pool!r}>"

    async def begin(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        *,
        id_: str | None = None,
        here: bool = False,
    ) -> Generation:
        """Start a generation, or join the one that has the same key; in a cluster on any server.

        Where there is but this server, no turn is given to others.

        Args:
            api, previous, id_: as of `submit`.
            here: only on this server, to which another one has sent the request.

        Raises:
            RequestError: as `submit`; or the cluster cannot say what the key means.
        """
        if self._cluster is None:
            return self.submit(request, user, api, previous, id_)
        size = sizes.of(request.prompt) + sizes.of(request.messages)
        with self._budget.holding(user.name, size):
            return await self._cluster.begin(request, user, api, previous, id_, here=here)

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        """Start a generation here, or join the one that has the same key.

        Args:
            api: see Generation.
            previous: what `Generations.find_previous` has found of a request that names one.
            id_: of a new one; None: any.

        Raises:
            RequestError: the request is wrong, the queue is full, or the server is stopping.
        """
        with self._watch.submitting():
            if previous is None:
                return self._submit(request, user, api, id_=id_)
            return self._submit(following(request, previous), user, api, request, id_)

    def _submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None,
        asked: Generate | None = None,
        id_: str | None = None,
    ) -> Generation:
        self._check_open()
        model_key = self._pool.key_of(request.model)
        self._pool.check(model_key)
        generation = requests.from_request(
            request,
            self._settings,
            self._persistence.level(request.level),
            self._pool.context(model_key),
            user,
            self._budget.bounds.generation,
            api,
            asked,
            id_,
        )
        if request.peer is not None:
            generation.id = self._id_of_peer(request.peer, generation.id)
        if request.key is not None:
            same = self._registry.find_by_key(
                request.key,
                generation.request_hash,
                generation.owner,
                generation.earlier_hash,
            )
            if same is not None:
                self._budget.check_streams(self._standing.streams)
                return same
            if request.fresh:
                self._registry.check_fresh(request.key, generation.owner)
        self._budget.admit(generation)
        generation.most_bytes = self._budget.bounds.most_of_log(generation.params)
        slot_request = self._runner.dispatcher.slot_request(generation, model_key)
        ticket = self._launcher.enter(generation, slot_request)
        self._launcher.start(generation, partial(self._runner.run, generation, ticket))
        text = request.prompt if request.messages is None else request.messages
        # With --log-prompts the text is logged at the default level.
        write = log.info if self._settings.log_prompts else log.debug
        write(
            "generation_started",
            generation=generation.id,
            position=ticket.position,
            params=sorted(generation.params),
            **({"prompt": text} if self._settings.log_prompts and not request.transient else {}),
        )
        return generation

    def _id_of_peer(self, peer: dict[str, Any], otherwise: str) -> str:
        """The id that another server has given a generation."""
        id_ = str(peer.get("id") or otherwise)
        if self._registry.find(id_, None) is not None:
            raise InvalidRequest("a generation has this id already")
        return id_

    def outline(self, request: Generate, user: User, api: dict[str, Any] | None) -> Generation:
        """The generation that a request asks for, which does not run.

        Raises:
            RequestError: the request is wrong.
        """
        level = self._persistence.level(request.level)
        most = self._budget.bounds.generation
        return requests.from_request(request, self._settings, level, None, user, most, api)
