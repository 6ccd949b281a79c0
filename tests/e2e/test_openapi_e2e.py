"""What a real server answers is what its /openapi.json says.

`make test-openapi` asks much more, by schemathesis.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.processes import PATIENCE, running_server
from tests.support.server.forms import TYPE, field, file, form
from tools.overhead.processes import synthetic_upstream

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Api:
    """A server, and what it says of itself."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.document: dict[str, Any] = json.loads(self.ask("GET", "/openapi.json")[2])

    def ask(
        self, method: str, path: str, body: Any = None, type_: str = "application/json"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, {} if data is None else {"Content-Type": type_})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def check(self, method: str, pattern: str, id_: str = "", **asked: Any) -> tuple[int, bytes]:
        """Ask, and compare the answer with the document; the answer."""
        status, headers, body = self.ask(method, pattern.replace("{id}", id_), **asked)
        operation = self.document["paths"][pattern][method.lower()]
        response = operation["responses"][str(status)]
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].split("/")[-1]]
        kind = headers["Content-Type"].partition(";")[0]
        schema = response["content"][kind]["schema"]
        if kind == "application/json":
            whole = {**schema, "components": self.document["components"]}
            jsonschema_rs.Draft202012Validator(whole).validate(json.loads(body))
        for name in response.get("headers", {}):
            if name.startswith("x-llcuda-generation") or name == "x-request-id":
                assert headers[name], name
        return status, body


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with synthetic_upstream() as upstream:
        url = "http://{}:{}".format(*upstream.address)
        with running_server("--upstream", url) as server:
            yield Api(server.port)


def test_the_document_is_openapi(api: Api) -> None:
    OpenAPIV31SpecValidator(api.document).validate()


def test_every_operation_answers_as_documented(api: Api) -> None:
    status, body = api.check("POST", "/v1/chat/completions", body=CHAT)
    assert status == 200
    id_ = json.loads(body)["llcuda"]["generation"]
    assert api.check("POST", "/v1/chat/completions", body={**CHAT, "stream": True})[0] == 200
    assert api.check("POST", "/v1/messages", body=CHAT)[0] == 200
    assert api.check("POST", "/v1/messages", body={**CHAT, "stream": True})[0] == 200
    assert api.check("POST", "/v1/messages/count_tokens", body=CHAT)[0] == 200
    assert api.check("POST", "/v1/embeddings", body={"input": ["a", "b"]})[0] == 200
    model = json.loads(api.check("GET", "/v1/models")[1])["data"][0]["id"]
    assert api.check("GET", "/v1/models/{id}", model)[0] == 200
    assert api.check("GET", "/models")[0] == 200
    for path in ("/models/load", "/models/unload"):  # it is its upstream's
        assert api.check("POST", path, body={"model": model})[0] == 400
        assert api.check("POST", path, body={"model": "nobody"})[0] == 404
    assert api.check("GET", "/v1/generations")[0] == 200
    assert api.check("GET", "/v1/generations/{id}", id_)[0] == 200
    assert b"[DONE]" in api.check("GET", "/v1/generations/{id}/events", id_)[1]
    assert api.check("POST", "/v1/generations/{id}/cancel", id_)[0] == 200
    assert api.check("DELETE", "/v1/generations/{id}", id_)[0] == 200
    body = form(field("purpose", "batch"), file(b"{}"))
    status, found = api.check("POST", "/v1/files", body=body, type_=TYPE)
    assert status == 200
    id_ = json.loads(found)["id"]
    assert api.check("GET", "/v1/files")[0] == 200
    assert api.check("GET", "/v1/files/{id}", id_)[0] == 200
    assert api.check("GET", "/v1/files/{id}/content", id_)[1] == b"{}"
    batch = {"input_file_id": id_, "endpoint": "/v1/embeddings", "completion_window": "1h"}
    status, found = api.check("POST", "/v1/batches", body=batch)
    assert status == 200
    made = json.loads(found)["id"]
    assert api.check("GET", "/v1/batches")[0] == 200
    assert api.check("GET", "/v1/batches/{id}", made)[0] == 200
    api.check("POST", "/v1/batches/{id}/cancel", made)  # 200 or 409: its only line is wrong
    assert api.check("DELETE", "/v1/files/{id}", id_)[0] == 200
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert api.check("GET", path)[0] == 200


def test_errors_are_as_documented(api: Api) -> None:
    wrong = [b"", b"[]", b"{", b"\xff", {}, {"messages": []}, {**CHAT, "nothing": 1}]
    for body in wrong:
        assert api.check("POST", "/v1/chat/completions", body=body)[0] == 400
        assert api.check("POST", "/v1/messages", body=body)[0] == 400
        assert api.check("POST", "/v1/messages/count_tokens", body=body)[0] == 400
    assert api.check("POST", "/v1/chat/completions", body=CHAT, type_="text/plain")[0] == 415
    assert api.check("POST", "/v1/embeddings", body={"input": []})[0] == 400
    assert api.check("GET", "/v1/models/{id}", "nobody")[0] == 404
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/cancel")):
        assert api.check(method, "/v1/generations/{id}" + rest, "nothing")[0] == 404
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        assert api.check(method, "/v1/files/{id}" + rest, "nothing")[0] == 404
    assert api.check("POST", "/v1/files", body=b"{}")[0] == 415
    for method, rest in (("GET", ""), ("POST", "/cancel")):
        assert api.check(method, "/v1/batches/{id}" + rest, "nothing")[0] == 404
    assert api.check("POST", "/v1/batches", body={})[0] == 400


def test_what_is_not_documented_is_refused(api: Api) -> None:
    for pattern, operations in api.document["paths"].items():
        known = {name.upper() for name in operations}
        for method in set(METHODS) - known:
            status, headers, _ = api.ask(method, pattern.replace("{id}", "nothing"))
            assert status == 405, (method, pattern)
            assert known <= set(headers["Allow"].split(", "))
