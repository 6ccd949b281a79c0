"""llama-server's own routes with a real one: the built-in engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import RunningServer, running_server
from tests.support.upstream.tiny_model import write_tiny_model


def _post(server: RunningServer, path: str, **body: Any) -> Any:
    reply = httpx.post(f"http://127.0.0.1:{server.port}{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_tokens_and_templates(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    with running_server("--model", str(model), "--slots", "1") as server:
        text = "a cat \u00e9 <|end|>"
        ids = _post(server, "/tokenize", content=text)["tokens"]
        assert _post(server, "/detokenize", tokens=ids)["content"] == text
        literal = _post(server, "/tokenize", content=text, parse_special=False)["tokens"]
        assert len(literal) > len(ids)
        pieces = _post(server, "/tokenize", content=text, with_pieces=True)["tokens"]
        assert [one["id"] for one in pieces] == ids
        assert {"id": ids[0], "piece": "a"} in pieces
        assert any(isinstance(one["piece"], list) for one in pieces)  # halves of a letter
        messages = [{"role": "user", "content": "hi"}]
        prompt = "<|user|>hi<|end|>"
        answer = _post(server, "/apply-template", messages=messages)
        assert answer == {"prompt": f"{prompt}<|assistant|>"}
        answer = _post(server, "/apply-template", messages=messages, add_generation_prompt=False)
        assert answer == {"prompt": prompt}
        url = f"http://127.0.0.1:{server.port}"
        wrong = httpx.post(f"{url}/detokenize", json={"tokens": [1 << 30]}, timeout=60)
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_request")
        none = httpx.post(f"{url}/v1/rerank", json={"query": "a", "documents": ["b"]}, timeout=60)
        assert (none.status_code, none.json()["error"]["code"]) == (400, "unsupported")


def test_a_model_that_is_made_for_ranking(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "ranker.gguf", pooling=4)
    with running_server("--model", str(model), "--slots", "1") as server:
        documents = ["a bear", "a fish", "a stone of great weight"]
        answer = _post(server, "/v1/rerank", query="panda", documents=documents)
        assert sorted(one["index"] for one in answer["results"]) == [0, 1, 2]
        scores = [one["relevance_score"] for one in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert answer["usage"]["prompt_tokens"] > 0
        best = _post(server, "/rerank", query="panda", documents=documents, top_n=1)["results"]
        assert best == answer["results"][:1]
        models = httpx.get(f"http://127.0.0.1:{server.port}/v1/models", timeout=60).json()
        assert "rerank" in models["data"][0]["capabilities"]
