"""What is loaded with a model, by either engine: adapters, a draft, a template, types of cache."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import trio
from structlog.testing import capture_logs

from llcuda_net.config.upstreams import COMPLETIONS, RERANK
from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.programs.probe import probe_program
from llcuda_net.upstream.engine.programs.program import Program
from llcuda_net.upstream.engine.supervisor import Engine
from tests.support.llama_server.binary import kinds, real_llama_server
from tests.support.llama_server.stand_in import stand_in
from tests.support.processes import PATIENCE
from tests.support.upstream.tiny_projector import image_url, write_tiny_projector

DEMO = Path(__file__).parents[4] / "llcuda_net/data/demo.gguf"
OPTIONS = EngineOptions(DEMO, slots=1, ctx=256, threads=1)


@pytest.fixture(scope="session", params=["builtin", *kinds()])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Of each llama-server that there is to test with; None: the built-in engine."""
    if request.param == "builtin":
        return None
    if request.param == "stand-in":
        return stand_in(tmp_path_factory.mktemp("beside")).path
    return real_llama_server()


@pytest.fixture
async def program(path: Path | None) -> Program:
    return await probe_program(path)


@asynccontextmanager
async def serving(program: Program, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    engine = Engine(replace(OPTIONS, **changes), program)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        assert engine.base_url is not None
        async with httpx.AsyncClient(
            base_url=engine.base_url,
            trust_env=False,
            timeout=None,
            headers={"Authorization": f"Bearer {engine.api_key}"},
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


async def answer(client: httpx.AsyncClient) -> dict[str, Any]:
    body = {"prompt": "The server keeps", "n_predict": 12, "temperature": 0, "ignore_eos": True}
    found: dict[str, Any] = (await client.post("/completion", json=body)).json()
    return found


async def refusal(program: Program, **changes: Any) -> str:
    with pytest.raises(EngineError) as caught, trio.fail_after(PATIENCE):
        await Engine(replace(OPTIONS, **changes), program).run()
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_lora(path: Path, *, width: int = 192, architecture: str = "llama") -> Path:
    """An adapter of the demonstration model's first layer, of another one with another width."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    random = np.random.default_rng(1)
    for name, shape in (("a", (4, width)), ("b", (192, 4))):
        tensor = random.normal(size=shape).astype(np.float32) / 2
        writer.add_tensor(f"blk.0.attn_q.weight.lora_{name}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_adapters_with_their_scale(program: Program, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.gguf")
    answers = []
    for lora in ((), ((path, 1.0),), ((path, 0.25),)):
        async with serving(program, lora=lora) as client:
            answers.append((await answer(client))["content"])
    assert len(set(answers)) == 3


async def test_an_adapter_of_another_model(program: Program, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.gguf", width=224)
    message = await refusal(program, lora=((path, 1.0),))
    assert message.startswith(f"cannot load {DEMO}: failed to apply lora adapter: tensor")
    assert "incorrect shape" in message


async def test_a_draft(program: Program) -> None:
    async with serving(program, draft=DEMO) as client:
        timings = (await answer(client))["timings"]
        assert timings["draft_n"] > 0
        assert timings["draft_n_accepted"] == timings["draft_n"]  # it is the same model


async def test_a_draft_that_does_not_fit_is_said(program: Program, tiny: Path) -> None:
    with capture_logs() as logs:
        async with serving(program, draft=tiny):
            pass
    (told,) = (one for one in logs if one["event"] == "engine_loaded_with_errors")
    assert "vocab" in " ".join(told["lines"])


async def test_a_chat_template(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for message in messages %}[{{ message.content }}]{% endfor %}")
    async with serving(program, chat_template=path) as client:
        body = {"messages": [{"role": "user", "content": "x"}]}
        assert (await client.post("/apply-template", json=body)).json()["prompt"] == "[x]"


async def test_a_projector_for_images(program: Program, tmp_path: Path) -> None:
    path = write_tiny_projector(tmp_path / "mmproj.gguf")
    async with serving(program, mmproj=path) as client:
        assert (await client.get("/props")).json()["modalities"]["vision"] is True
        picture = {"type": "image_url", "image_url": {"url": image_url()}}
        content = [{"type": "text", "text": "What is it?"}, picture]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200
        tokens = reply.json()["usage"]["prompt_tokens"]
        body["messages"] = [{"role": "user", "content": content[:1]}]
        less = (await client.post("/v1/chat/completions", json=body)).json()
        assert tokens > less["usage"]["prompt_tokens"] + 8  # the picture is some tokens of it


async def test_a_projector_of_another_model(program: Program, tmp_path: Path) -> None:
    path = write_tiny_projector(tmp_path / "mmproj.gguf", width=256)
    assert await refusal(program, mmproj=path) == (
        f"cannot load {DEMO}: mismatch between text model (n_embd = 192) and mmproj (n_embd = 256)"
    )


async def test_types_of_the_cache(program: Program) -> None:
    given = {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    async with serving(program, flash_attn="on", **given) as client:
        assert len((await answer(client))["content"]) > 0
    message = await refusal(program, flash_attn="off", **given)
    assert "quantized V cache requires flash_attn" in message


async def test_a_longer_context(program: Program) -> None:
    assert "give at most 2048" in await refusal(program, ctx=2049)
    assert "which are 2 times the 2048" in await refusal(program, ctx=4097, rope_scale=2.0)
    async with serving(program, ctx=4096, rope_scaling="yarn", rope_scale=2.0) as client:
        (slot,) = (await client.get("/slots")).json()
        assert slot["n_ctx"] == 4096


async def test_what_it_is_for(program: Program) -> None:
    async with serving(program, roles=frozenset({COMPLETIONS})) as client:
        assert (await client.post("/embedding", json={"content": "a"})).status_code == 501
        assert (await answer(client))["content"]
    async with serving(program, roles=frozenset({RERANK})) as client:
        reply = await client.post("/rerank", json={"query": "a", "documents": ["b"]})
        assert reply.status_code != 501


@pytest.mark.parametrize("name", ["mmproj", "draft", "lora", "chat_template"])
async def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "absent"
    given = ((path, 1.0),) if name == "lora" else path
    message = await refusal(Program(None), **{name: given})
    assert message.startswith(f"{name}: ")
    assert str(path) in message


async def test_files_that_are_something_else(tmp_path: Path) -> None:
    assert await refusal(Program(None), mmproj=DEMO) == (
        f"mmproj: {DEMO} is no projector but a model of the architecture llama; its name often "
        "has mmproj in it"
    )
    path = write_lora(tmp_path / "a.gguf", architecture="qwen2")
    assert await refusal(Program(None), lora=((path, 1.0),)) == (
        f"lora: {path} is of the architecture qwen2, and the model of llama"
    )
    projector = write_lora(tmp_path / "p.gguf", architecture="clip")
    assert "give it as mmproj" in await refusal(Program(None), model=projector, ctx=None)
    empty = tmp_path / "t.jinja"
    empty.write_text(" \n")
    assert "is empty" in await refusal(Program(None), chat_template=empty)
    empty.write_bytes(b"\xff")
    assert "it is not UTF-8" in await refusal(Program(None), chat_template=empty)
    empty.write_bytes(b"x" * ((1 << 20) + 1))
    assert "that is no template" in await refusal(Program(None), chat_template=empty)
