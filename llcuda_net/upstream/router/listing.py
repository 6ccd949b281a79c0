"""What a llama-server in router mode says of its models in /models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from llcuda_net.upstream.llama.transport.origin import decoder

#: Models of one router that are taken up: each takes memory here, whatever it lists.
MOST_MODELS = 1024


class Status(StrEnum):
    """Whether the process of a model runs, in the router's words."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    #: Its process runs, and has given its memory back; it takes it again when it is asked.
    SLEEPING = "sleeping"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that a router can serve.

    Attributes:
        aliases: other names that the router knows it by, in order.
        exit_code: of its process, where that has failed; None: it has not.
        reranks: it is started to rank documents.
    """

    name: str
    status: Status
    aliases: tuple[str, ...] = ()
    exit_code: int | None = None
    reranks: bool = False


#: Options of a model that ranks documents; its properties do not say so.
_RERANKS = {"--rerank", "--reranking"}
_STATUSES = {str(one): one for one in Status}


class _Status(msgspec.Struct):
    value: str
    args: list[str] = []
    failed: bool = False
    exit_code: int = 0


class _Model(msgspec.Struct):
    id: str
    aliases: list[str] = []
    status: _Status | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_models = decoder(_Models, "/models gave no models")


def models_of(data: bytes) -> list[ListedModel] | None:
    """The models that are, or can be, loaded; None where the server is no router.

    Those that the router still downloads are left out.

    Raises:
        RequestError: it is not a list of models.
    """
    listed = _models(data).data
    if listed and all(one.status is None for one in listed):
        return None
    found = {}
    for one in listed:
        status = None if one.status is None else _STATUSES.get(one.status.value)
        if one.status is None or status is None or not one.id:
            continue
        found[one.id] = ListedModel(
            one.id,
            status,
            tuple(sorted(set(one.aliases) - {one.id, ""})),
            one.status.exit_code if one.status.failed else None,
            not _RERANKS.isdisjoint(one.status.args),
        )
        if len(found) == MOST_MODELS:
            break
    return list(found.values())


class _Limit(msgspec.Struct):
    max_instances: int = 0


_limit = decoder(_Limit, "/props gave no properties")


def limit_of(data: bytes) -> int | None:
    """How many models may be loaded at once, by a router's /props; None: any number.

    Raises:
        RequestError: they are no properties.
    """
    found = _limit(data).max_instances
    return found if found > 0 else None
