"""Versions of answers over kill -9, clients that race for them, and what the docs show."""

from __future__ import annotations

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_documented_streams import block
from tests.support.processes import PATIENCE, RunningServer, environment, running_server
from tests.support.steady import held_upstream, release

#: Tokens of an answer, and those that come before it is released.
TOKENS, HELD = 60, 20


def ask(server: RunningServer, method: str, path: str, body: Any = None, **headers: str) -> Any:
    url = f"http://{server.address}/v1/{path}"
    answer = httpx.request(method, url, json=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code in (200, 409), answer.text
    return answer.json()


def nodes(server: RunningServer, conversation: str, query: str = "order=asc") -> Any:
    return ask(server, "GET", f"conversations/{conversation}/responses?{query}")


def ended(server: RunningServer, conversation: str) -> Any:
    while True:
        found = nodes(server, conversation)
        if all(one["status"] not in ("queued", "in_progress") for one in found["data"]):
            return found


@pytest.mark.parametrize("place", ["instead_of", "previous_response_id"])
def test_a_version_goes_on_after_kill_9_and_is_one(tmp_path: Path, place: str) -> None:
    with held_upstream(HELD) as url, ExitStack() as stack:
        arguments = ("--upstream", url, "--data-dir", str(tmp_path))
        server = stack.enter_context(running_server(*arguments))
        release(url)
        id_ = ask(server, "POST", "conversations", {})["id"]
        body = {"conversation": id_, "input": "tell me a story", "max_output_tokens": TOKENS}
        body |= {"background": True, "temperature": 0, "ignore_eos": True}
        first = ask(server, "POST", "responses", body)["id"]
        ended(server, id_)
        wanted = {**body, place: first}
        undisturbed = ask(server, "POST", "responses", wanted)["id"]
        text = ended(server, id_)["data"][1]["text"]
        assert text
        made = {undisturbed}
        release(url, False)  # what begins now is under way when the server is killed
        for key in ("a", "b"):
            begun = ask(server, "POST", "responses", wanted, **{"Idempotency-Key": key})["id"]
            made.add(begun)
            for _ in range(2):
                server.stop(signal.SIGKILL)
                again = (*arguments, "--port", str(server.port))
                server = stack.enter_context(running_server(*again))
                same = ask(server, "POST", "responses", wanted, **{"Idempotency-Key": key})
                assert same["id"] == begun
        release(url)
        found = ended(server, id_)
        assert found["active"] == begun
        assert {one["id"] for one in found["data"]} == {first, *made}
        versions = [one for one in found["data"] if one["id"] in made]
        assert [one["text"] for one in versions] == [text] * 3
        behind = first if place == "previous_response_id" else None
        assert [one["previous"] for one in versions] == [behind] * 3


def test_clients_that_race_for_versions_get_one_each(demo_server: RunningServer) -> None:
    id_ = ask(demo_server, "POST", "conversations", {})["id"]
    body = {"conversation": id_, "input": "What is a slot?", "max_output_tokens": 4}
    first = ask(demo_server, "POST", "responses", body)["id"]

    def one(n: int) -> str:
        wanted = {**body, "instead_of": first, "background": True}
        headers = {"Idempotency-Key": f"race {n % 4}"}  # each by two clients
        return str(ask(demo_server, "POST", "responses", wanted, **headers)["id"])

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(8)))
    assert len(set(made)) == 4
    found = ended(demo_server, id_)
    assert set(found["data"][0]["versions"]) == {first, *made}
    assert len(found["data"]) == 5
    assert len({one["text"] for one in found["data"]}) == 1


def test_what_the_docs_show(tmp_path: Path, demo_server: RunningServer) -> None:
    code = block("sh", "conversation=", "docs/api-responses.md")
    done = subprocess.run(
        ["bash", "-ec", code.replace("127.0.0.1:9000", demo_server.address)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    documents, rest = [], done.stdout
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    beside, behind, page, gone = documents
    first = beside["llcuda"]["instead_of"]
    assert behind["previous_response_id"] == first
    assert [one["id"] for one in page["data"]] == [behind["id"], first]
    assert page["data"][1]["versions"] == [first, beside["id"]]
    assert page["data"][0]["blocks"]
    assert gone["responses"] == {"deleted": 3, "kept": 0}
    text = (tmp_path / "slots.md").read_text(encoding="utf-8")
    assert text.startswith("# Slots\n")
    assert "## User\n\nWhy?" in text
