"""Readers that come to another server of a cluster with what they have got from the first one."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from llcuda_net.server.http.responses.outline import GAP
from llcuda_protocol import Accepted, Attach, Done, Error
from tests.e2e.test_peers_e2e import PROMPT, pair
from tests.support.processes import PATIENCE, RunningServer
from tests.support.raw_client import CREDIT, ask, connected
from tests.support.steady import held_upstream, release
from tests.support.storage.postgres import Postgres

#: More than comes in one piece from server to server.
MUCH = 30_000


def read(server: RunningServer, path: str, lines: int = 0, **headers: str) -> tuple[int, list[Any]]:
    """The status, and the data of the first events (0: of all)."""
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found: list[Any] = []
            for line in answer:
                if line.startswith(b"data: {"):
                    found.append(json.loads(line[6:]))
                    if len(found) == lines:
                        break
            return answer.status, found
    except urllib.error.HTTPError as error:
        with error:
            return error.code, [json.loads(error.read())]


def test_a_reader_that_has_much_goes_on_at_the_other_server(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    with (
        held_upstream(MUCH, "--rate", "20000", "--ctx", str(3 * MUCH)) as upstream,
        pair(url, tmp_path, upstream) as (a, b, _),
        connected(a.port) as at_a,
        connected(b.port) as at_b,
    ):
        at_a.send(ask(PROMPT, n_predict=MUCH + 5))
        id_ = at_a.begun(MUCH)[0].id
        at_b.send(Attach(1, id_, CREDIT, first=MUCH, epoch=0))
        answer = at_b.until(Accepted | Error)[1]
        assert isinstance(answer, Accepted), answer
        paths = {
            f"/v1/generations/{id_}/events": {"Last-Event-ID": f"{id_}:{MUCH - 1}"},
            f"/v1/responses/{id_}?stream=true&starting_after={MUCH + 2}": {},
        }
        for path, headers in paths.items():
            status, found = read(b, path, 1, **headers)
            assert status == 200, found
        release(upstream)
        assert len(at_b.until(Done)[0]) == 5


def test_a_number_tells_another_server_what_its_reader_has(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    body = {"input": "hi", "stream": True, "max_output_tokens": 60, "background": True}
    with held_upstream(20) as upstream, pair(url, tmp_path, upstream) as (a, b, _):
        headers = {"Content-Type": "application/json", "x-llcuda-level": "disk"}
        request = urllib.request.Request(
            f"http://{a.address}/v1/responses", json.dumps(body).encode(), headers
        )
        seen: list[Any] = []
        with urllib.request.urlopen(request, timeout=PATIENCE) as at_a:
            id_ = f"resp_{at_a.headers['x-llcuda-generation']}"
            while sum("delta" in one for one in seen) < 20:
                line = at_a.readline()
                if line.startswith(b"data: "):
                    seen.append(json.loads(line[6:]))
        last = seen[-1]["sequence_number"]
        assert [one["sequence_number"] for one in seen] == list(range(last + 1))
        path = f"/v1/responses/{id_}?stream=true&starting_after="
        assert read(b, f"{path}{last - 1}", 1)[1] == seen[-1:]
        a.process.kill()
        a.process.wait()
        shutil.rmtree(tmp_path / "a")
        release(upstream)
        # As if more had been seen than the database had.
        status, (refused,) = read(b, f"{path}{last + 3}")
        assert (status, refused["error"]["code"]) == (409, "ahead")
        status, rest = read(b, f"{path}{last}")
        assert status == 200
        assert rest[0]["sequence_number"] > last + GAP
        assert rest[-1]["type"] == "response.incomplete"
        text = "".join(one["delta"] for one in [*seen, *rest] if "delta" in one)
        assert rest[-1]["response"]["output"][0]["content"][0]["text"] == text
        assert read(b, f"{path}{rest[5]['sequence_number']}")[1] == rest[6:]
