"""Two servers on one PostgreSQL: what clients keep at one is there at the other."""

from __future__ import annotations

import json
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres

TOKEN = "token-of-ann-12345"
TOKENS = 8


def pair(postgres: Postgres, folder: Path, upstream: str, *more: str) -> list[tuple[str, ...]]:
    """The arguments of two servers on a new database."""
    url = postgres.new_database()
    return [
        ("--upstream", upstream, "--store", url, "--data-dir", str(folder / name), *more)
        for name in ("a", "b")
    ]


def call(
    server: RunningServer, method: str, path: str, body: Any = None, **options: Any
) -> httpx.Response:
    url = f"http://{server.address}/v1/{path}"
    return httpx.request(method, url, json=body, timeout=PATIENCE, **options)


def ask(server: RunningServer, method: str, path: str, body: Any = None) -> Any:
    answer = call(server, method, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def everything(server: RunningServer, conversation: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        path = f"conversations/{conversation}/responses?order=asc&limit=100{after}"
        page = ask(server, "GET", path)
        found += page["data"]
        if not page["has_more"]:
            return found


def test_conversations_go_on_at_either_server_at_the_same_time(
    postgres: Postgres, tmp_path: Path
) -> None:
    with held_upstream(TOKENS + 1, "--rate", "1000") as upstream:
        one, two = pair(postgres, tmp_path, upstream)
        with running_server(*one) as a, running_server(*two) as b:
            shared = ask(a, "POST", "conversations", {"title": "shared"})["id"]
            body = {"max_output_tokens": TOKENS, "conversation": shared}
            first = ask(b, "POST", "responses", {**body, "input": "begin"})["id"]

            def work(seed: int) -> tuple[dict[str, str], list[str], list[str]]:
                """Go on from anywhere in the shared one; keep, and delete, some of one's own."""
                chance = random.Random(seed)
                behind, kept, gone = {first: ""}, [], []
                for number in range(8):
                    server, other = chance.sample([a, b], 2)
                    before = chance.choice([*behind])
                    asked = {**body, "input": f"{seed} {number}", "previous_response_id": before}
                    made = ask(server, "POST", "responses", asked)["id"]
                    behind[made] = before
                    own = ask(server, "POST", "conversations", {"title": f"{seed} {number}"})["id"]
                    item = {"role": "user", "content": "kept"}
                    ask(other, "POST", f"conversations/{own}/items", {"items": [item]})
                    if chance.random() < 0.5:
                        ask(other, "DELETE", f"conversations/{own}")
                        gone.append(own)
                    else:
                        ask(other, "POST", f"conversations/{own}", {"metadata": {"by": f"{seed}"}})
                        kept.append(own)
                return behind, kept, gone

            with ThreadPoolExecutor(4) as pool:
                done = [*pool.map(work, range(4))]
            behind = {id_: before for found, _, _ in done for id_, before in found.items()}
            assert len(behind) == 1 + 4 * 8
            for server in (a, b):
                found = everything(server, shared)
                assert {node["id"]: node["previous"] or "" for node in found} == behind
                assert len(found) == len(behind)
                listed = ask(server, "GET", "conversations?limit=100")["data"]
                there = {node["id"]: node for node in listed}
                assert there.keys() == {shared, *(id_ for _, kept, _ in done for id_ in kept)}
                assert there[shared]["entries"] == len(behind)
                for _, kept, gone in done:
                    assert all(there[id_]["metadata"] for id_ in kept)
                    for id_ in gone:
                        assert call(server, "GET", f"conversations/{id_}").status_code == 404


def test_a_file_is_there_at_the_other_server(postgres: Postgres, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(1_500_000)
    with held_upstream(TOKENS) as upstream:
        one, two = pair(postgres, tmp_path, upstream)
        with running_server(*one) as a, running_server(*two) as b:
            form = {"files": {"file": ("x.bin", data)}, "data": {"purpose": "user_data"}}
            kept = call(a, "POST", "files", **form).json()
            assert kept["bytes"] == len(data)
            a.stop(signal.SIGKILL)
            assert call(b, "GET", f"files/{kept['id']}/content").content == data
            assert ask(b, "DELETE", f"files/{kept['id']}")["deleted"]
    assert not (tmp_path / "b" / "objects.db").exists()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN} name=ann\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_who_signs_in_at_one_is_known_at_the_other(
    postgres: Postgres, tmp_path: Path, tokens: Path
) -> None:
    def browser(server: RunningServer) -> httpx.Client:
        origin = f"http://localhost:{server.port}"
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        return httpx.Client(base_url=origin, headers=headers, timeout=PATIENCE)

    def user(client: httpx.Client) -> Any:
        return client.get("/v1/session").json()["user"]

    with held_upstream(TOKENS) as upstream:
        one, two = pair(postgres, tmp_path, upstream, "--auth-token-file", str(tokens))
        with (
            running_server(*one) as a,
            running_server(*two) as b,
            browser(a) as at_a,
            browser(b) as at_b,
        ):
            assert at_a.post("/v1/session", json={"token": TOKEN}).status_code == 200
            id_ = at_a.cookies[f"llcuda_{a.port}"]
            at_b.cookies.set(f"llcuda_{b.port}", id_)
            assert user(at_b)["name"] == "ann"
            assert at_b.delete("/v1/session").json()["deleted"] == 1
            at_a.cookies.set(f"llcuda_{a.port}", id_)
            wait_until(lambda: user(at_a) is None, "the end of the session")


def test_what_one_changes_is_shown_at_the_other(postgres: Postgres, tmp_path: Path) -> None:
    with held_upstream(TOKENS) as upstream:
        one, two = pair(postgres, tmp_path, upstream)
        with running_server(*one) as a, running_server(*two) as b:
            url = f"http://{b.address}/v1/events"
            with httpx.stream("GET", url, timeout=PATIENCE) as stream:
                lines = stream.iter_lines()
                next(line for line in lines if line.startswith("data: "))
                made = ask(a, "POST", "conversations", {})["id"]
                assert next(line for line in lines if made in line)
                ask(a, "DELETE", f"conversations/{made}")
                assert next(line for line in lines if made in line and "deleted" in line)


def begin_batch(server: RunningServer, lines: int) -> str:
    def line(number: int) -> str:
        body = {"messages": [{"role": "user", "content": f"line {number}"}], "max_tokens": TOKENS}
        request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps({"custom_id": str(number), **request})

    data = "\n".join(map(line, range(lines))).encode()
    form = {"files": {"file": ("b.jsonl", data)}, "data": {"purpose": "batch"}}
    file = call(server, "POST", "files", **form).json()["id"]
    endpoint = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = ask(server, "POST", "batches", {"input_file_id": file, **endpoint})
    return str(made["id"])


def test_a_batch_whose_server_is_killed_for_good_is_finished_by_the_other(
    postgres: Postgres, tmp_path: Path
) -> None:
    with held_upstream(TOKENS + 1, "--rate", "200") as upstream:
        one, two = pair(postgres, tmp_path, upstream)
        with running_server(*one) as a, running_server(*two) as b:
            id_ = begin_batch(a, 200)

            def done() -> int:
                return int(ask(b, "GET", f"batches/{id_}")["request_counts"]["completed"])

            wait_until(lambda: done() > 40, "some lines")
            a.stop(signal.SIGKILL)
            assert done() < 200
            wait_until(lambda: ask(b, "GET", f"batches/{id_}")["status"] == "completed", "its end")
            batch = ask(b, "GET", f"batches/{id_}")
            assert batch["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
            answer = call(b, "GET", f"files/{batch['output_file_id']}/content")
            written = [json.loads(line) for line in answer.text.splitlines()]
            assert [one["custom_id"] for one in written] == [str(n) for n in range(200)]
            assert all(one["response"]["body"]["choices"] for one in written)


def test_a_batch_that_is_cancelled_at_the_other_server(postgres: Postgres, tmp_path: Path) -> None:
    with held_upstream(2) as upstream:
        one, two = pair(postgres, tmp_path, upstream)
        with running_server(*one) as a, running_server(*two) as b:
            for made_at, cancelled_at in ((a, b), (b, a)):  # one of them has the upstream
                id_ = begin_batch(made_at, 20)

                def running(at: RunningServer) -> list[str]:
                    listed = ask(at, "GET", "generations?limit=100")["data"]
                    return [one["id"] for one in listed if one["state"] in ("queued", "running")]

                wait_until(lambda: bool(running(a) and running(b)), "its lines")
                ask(cancelled_at, "POST", f"batches/{id_}/cancel")
                path = f"batches/{id_}"
                wait_until(lambda: ask(b, "GET", path)["status"] == "cancelled", "its end")  # noqa: B023
                # None is left, though each of them would wait for ever.
                wait_until(lambda: not running(a) and not running(b), "the end of its lines")
            release(upstream)
