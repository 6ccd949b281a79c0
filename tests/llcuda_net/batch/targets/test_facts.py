"""What servers say of themselves, each in its own way; what they do not say is named."""

from __future__ import annotations

import hashlib
from typing import Any

from llcuda_net.batch.targets import facts


def asking(**answers: dict[str, Any]) -> facts.JsonOf:
    """Answers by path, whose slashes and dots are underscores."""

    async def ask(path: str, body: Any) -> dict[str, Any]:
        return answers.get(path.strip("/").replace("/", "_"), {})

    return ask


def complete(found: dict[str, Any]) -> None:
    """Each null has a reason, and nothing else has."""
    names = {name for name, value in found.items() if value is None}
    names |= {f"model.{name}" for name, value in found["model"].items() if value is None}
    assert names == set(found["unknown"])
    assert all(found["unknown"].values())


async def test_a_llama_server() -> None:
    props = {
        "build_info": "b6000-abc",
        "model_path": "/models/x-Q4_K_M.gguf",
        "model_ftype": "Q4_K - Medium",
        "total_slots": 4,
        "chat_template": "{{ messages }}",
        "endpoint_metrics": True,
        "default_generation_settings": {"n_ctx": 4096, "params": {"lora": []}},
    }
    meta = {"n_params": 7_000_000_000, "size": 4_000_000_000, "n_ctx_train": 32_768}
    models = {"data": [{"id": "x", "owned_by": "llamacpp", "meta": meta}]}
    ask = asking(props=props, v1_models=models)
    found = await facts.of_llama(ask)
    complete(found)
    assert (found["software"], found["version"]) == ("llama-server", "b6000-abc")
    assert (found["context"], found["slots"]) == (4096, 4)
    assert found["chat_template_sha256"] == hashlib.sha256(b"{{ messages }}").hexdigest()
    assert found["flags"] == {"endpoint_metrics": True, "lora": []}
    model = found["model"]
    assert model["file"] == "/models/x-Q4_K_M.gguf"  # which sealing cuts
    assert (model["name"], model["quantisation"]) == ("x-Q4_K_M.gguf", "Q4_K - Medium")
    assert (model["parameters"], model["context_trained"]) == (7_000_000_000, 32_768)
    assert found["unknown"]["model.sha256"] == "the server does not say"
    assert await facts.of_openai(ask, "x") == found  # by the other API it is the same


async def test_ollama() -> None:
    show = {
        "details": {"family": "llama", "quantization_level": "Q4_K_M"},
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 1_200_000_000,
            "llama.context_length": 131_072,
        },
        "template": "{{ .Prompt }}",
    }
    tags = {"models": [{"name": "m:latest", "digest": "abc", "size": 9}, {"name": "n"}]}
    models = {"data": [{"id": "m", "owned_by": "library"}]}
    found = await facts.of_openai(
        asking(v1_models=models, api_version={"version": "0.5"}, api_show=show, api_tags=tags), "m"
    )
    complete(found)
    assert (found["software"], found["version"]) == ("Ollama", "0.5")
    model = found["model"]
    assert (model["digest"], model["size"], model["quantisation"]) == ("abc", 9, "Q4_K_M")
    assert (model["parameters"], model["context_trained"]) == (1_200_000_000, 131_072)
    assert model["architecture"] == "llama"


async def test_vllm_lm_studio_and_strangers() -> None:
    models = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 8192, "root": "org/m"}]}
    found = await facts.of_openai(asking(v1_models=models, version={"version": "0.9"}), "m")
    complete(found)
    assert (found["software"], found["version"], found["context"]) == ("vLLM", "0.9", 8192)

    own = {"id": "m", "arch": "qwen2", "quantization": "4bit", "max_context_length": 32_768}
    found = await facts.of_openai(asking(api_v0_models={"data": [own]}), "m")
    complete(found)
    assert found["software"] == "LM Studio"
    assert (found["model"]["quantisation"], found["context"]) == ("4bit", None)

    nonsense = {"data": [None, {"id": 3}, {"id": "m", "owned_by": 5}]}
    strange: list[dict[str, Any]] = [{}, {"data": {}}, {"data": 3}, nonsense]
    for told in strange:
        found = await facts.of_openai(asking(v1_models=told, api_v0_models=told), "n")
        complete(found)
        assert (found["software"], found["model"]["name"]) == (None, "n")


async def test_an_llcuda_server_and_what_is_behind_it() -> None:
    known = {"build": "b1", "hash": "ab" * 32, "size": 5, "quantisation": "Q8_0"}
    status = {
        "server": {"version": "0.2"},
        "store": {"level": "disk"},
        "upstreams": [
            {"model": "m", "slots": 2, "context": 2048, "fingerprint": known},
            {"model": "m", "slots": 3, "context": 1024, "fingerprint": {"size": 7}},
        ],
    }
    found = facts.of_gateway(status)
    complete(found)
    for each in found["upstreams"]:
        complete(each)
    assert (found["version"], found["slots"], found["context"]) == ("0.2", 5, 1024)
    assert found["flags"] == {"durability": "disk"}
    assert found["model"]["sha256"] == "ab" * 32
    assert "has not read it" in found["upstreams"][1]["unknown"]["model.sha256"]
    assert facts.unhashed(status) == 7
    assert facts.unhashed({"upstreams": [{}, None, {"fingerprint": 3}]}) == 0
    new = {"url": "http://127.0.0.1:1", "fingerprint": {"name": "m"}}
    assert facts.unhashed({"upstreams": [new, {**new, "url": "http://10.0.0.1:1"}]}) == 1

    own = {"id": "m", "owned_by": "llcuda", "context_length": 1024, "slots": 5}
    models = {"data": [{**own, "fingerprint": {"hash": "cd" * 32, "size": 6}}]}
    by_http = await facts.of_openai(asking(v1_models=models, v1_status=status), "m")
    complete(by_http)
    assert by_http["model"]["sha256"] == "cd" * 32
    assert (by_http["version"], by_http["slots"]) == ("0.2", 5)
    strange: list[dict[str, Any]] = [{}, {"upstreams": 3, "server": "noop"}, {"upstreams": [3]}]
    for nothing in strange:
        complete(facts.of_gateway(nothing))
