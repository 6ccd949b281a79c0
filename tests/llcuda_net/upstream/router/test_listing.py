"""What a router lists: as llama.cpp's 11434 does, and what no server should."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.errors import UpstreamError
from llcuda_net.upstream.router.listing import (
    MOST_MODELS,
    ListedModel,
    Status,
    limit_of,
    models_of,
)


def entry(name: str, value: str = "unloaded", **more: Any) -> dict[str, Any]:
    status = {"value": value, "args": ["llama-server"], **more.pop("status", {})}
    return {"id": name, "aliases": [], "tags": [], "object": "model", "status": status, **more}


def body(*entries: Any) -> bytes:
    return json.dumps({"data": entries, "object": "list"}).encode()


def test_each_state() -> None:
    found = models_of(
        body(
            entry("a"),
            entry("b", "loading"),
            entry("c", "loaded", meta={"n_ctx": 1024}, aliases=["z", "y", "c", ""]),
            entry("d", "sleeping"),
            entry("e", status={"failed": True, "exit_code": 1}),
            entry("f", "downloading"),
            entry("g", "something new"),
            entry("h", status={"args": ["llama-server", "--reranking"]}),
        )
    )
    assert found == [
        ListedModel("a", Status.UNLOADED),
        ListedModel("b", Status.LOADING),
        ListedModel("c", Status.LOADED, ("y", "z")),
        ListedModel("d", Status.SLEEPING),
        ListedModel("e", Status.UNLOADED, exit_code=1),
        ListedModel("h", Status.UNLOADED, reranks=True),
    ]


def test_one_llama_server_lists_its_model_without_a_state() -> None:
    assert models_of(body({"id": "m", "aliases": ["m"], "object": "model"})) is None


def test_a_router_may_have_no_models() -> None:
    assert models_of(body()) == []


def test_names_count_once_and_their_number_is_bounded() -> None:
    assert models_of(body(entry("a"), entry("a", "loaded"), entry(""))) == [
        ListedModel("a", Status.LOADED)
    ]
    found = models_of(body(*(entry(str(n)) for n in range(MOST_MODELS + 5))))
    assert found is not None
    assert len(found) == MOST_MODELS


@pytest.mark.parametrize("data", [b"", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"[" * 2000])
def test_nonsense_is_the_upstreams_error(data: bytes) -> None:
    with pytest.raises(UpstreamError, match="/models gave no models"):
        models_of(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_models_or_the_upstreams_error(data: bytes) -> None:
    with contextlib.suppress(UpstreamError):
        models_of(data)


def test_how_many_are_loaded_at_once() -> None:
    assert limit_of(b'{"role": "router", "max_instances": 4}') == 4
    assert limit_of(b'{"role": "router", "max_instances": 0}') is None
    assert limit_of(b'{"role": "router"}') is None
