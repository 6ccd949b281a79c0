"""deploy/proxies before a real server: nginx, HAProxy and Caddy do what docs/proxies.md says.

`make test-proxies` runs these, and installs the proxies on Debian.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import llcuda_net.sync
from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.proxies import NAMES, Proxy, proxy
from tests.support.steady import held_upstream, release

pytestmark = pytest.mark.proxies

TOKEN = "a-token-of-somebody-behind-a-proxy"
#: Tokens after which an answer is held, and all of them.
HELD, TOKENS = 5, 40
#: Where the time of a silent wait is said, and a time that is shorter than that of the tests.
SILENCE = {
    "nginx": "proxy_read_timeout 6h",
    "haproxy": "timeout server 6h",
    "caddy": "response_header_timeout 6h",
}
#: Seconds: longer than what is said in its place.
WAIT = 4.0


class Setup(NamedTuple):
    """A proxy, the server behind it, and the upstream of that."""

    name: str
    proxy: Proxy
    server: RunningServer
    upstream: str
    folder: Path

    @property
    def http(self) -> httpx.Client:
        """A client that trusts the proxy, with the user's token."""
        return client_of(self.proxy)


def client_of(one: Proxy) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(one.certificates.authority))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=one.url, verify=context, headers=headers, timeout=PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, str]]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN} name=me role=admin\n")
    tokens.chmod(0o600)
    with (
        held_upstream(HELD) as upstream,
        running_server("--auth-token-file", str(tokens), "--upstream", upstream) as running,
    ):
        yield running, upstream


@pytest.fixture(scope="module", params=NAMES)
def setup(
    request: pytest.FixtureRequest,
    server: tuple[RunningServer, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("proxy")
    running, upstream = server
    with proxy(request.param, running.address, folder / "main") as one:
        yield Setup(request.param, one, running, upstream, folder)


@pytest.fixture(autouse=True)
def held(setup: Setup) -> None:
    release(setup.upstream, False)


def body(stream: bool = True) -> dict[str, Any]:
    messages = [{"role": "user", "content": "tell me a story"}]
    return {"messages": messages, "max_tokens": TOKENS, "temperature": 0, "stream": stream}


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream, with their ids."""
    name = ""
    for line in lines:
        if line.startswith("id: "):
            name = line[4:]
        elif line.startswith("data: {"):
            yield {**json.loads(line[6:]), "event_id": name}


def text_of(event: dict[str, Any]) -> str:
    return str(event["choices"][0]["delta"].get("content") or "")


def test_the_first_tokens_come_before_the_last_ones_are_made(setup: Setup) -> None:
    with setup.http as http:
        whole = []
        with http.stream("POST", "/v1/chat/completions", json=body()) as answer:
            assert answer.status_code == 200
            for event in events(answer.iter_lines()):
                whole.append(text_of(event))
                if len([piece for piece in whole if piece]) == HELD:
                    release(setup.upstream)  # before that there is no more
        assert len([piece for piece in whole if piece]) == TOKENS


def test_a_silent_wait_is_as_long_as_the_file_says(setup: Setup) -> None:
    """With the file as it is the answer comes; with another time in its place it is cut off."""
    shorter = {SILENCE[setup.name]: SILENCE[setup.name].replace("6h", "1s")}
    with (
        proxy(setup.name, setup.server.address, setup.folder / "short", shorter) as short,
        client_of(short) as http,
    ):
        answer = http.post("/v1/chat/completions", json=body(stream=False))
        assert answer.status_code in (502, 504), answer.text
    timer = threading.Timer(WAIT, release, (setup.upstream,))
    timer.start()
    with setup.http as http:
        answer = http.post("/v1/chat/completions", json=body(stream=False))
    timer.join()
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() > WAIT - 1
    assert answer.json()["usage"]["completion_tokens"] == TOKENS


def test_a_cut_stream_goes_on_over_http(setup: Setup) -> None:
    headers = {"Idempotency-Key": f"a story through {setup.name}"}
    seen: list[dict[str, Any]] = []
    with (
        setup.http as http,
        contextlib.suppress(httpx.TransportError),
        http.stream("POST", "/v1/chat/completions", json=body(), headers=headers) as answer,
    ):
        for event in events(answer.iter_lines()):
            seen.append(event)
            if len(seen) == HELD:
                setup.proxy.kill()
    assert len(seen) == HELD
    setup.proxy.start()
    release(setup.upstream)
    last = seen[-1]["event_id"]
    path = f"/v1/generations/{last.partition(':')[0]}/events"
    with setup.http as http, http.stream("GET", path, headers={"Last-Event-ID": last}) as answer:
        seen += events(answer.iter_lines())
    numbers = [int(event["event_id"].partition(":")[2]) for event in seen]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len([event for event in seen if event["choices"] and text_of(event)]) == TOKENS


def test_our_own_protocol_comes_through_and_goes_on(setup: Setup) -> None:
    if setup.proxy.own_port is None:
        with pytest.raises(llcuda_net.ConnectError), connected(setup, setup.proxy.port):
            pass
        return
    notes: list[str] = []
    with connected(setup, setup.proxy.own_port, notes) as client:
        pieces = []
        with client.generate("tell me a story", n_predict=TOKENS, temperature=0) as stream:
            for piece in stream:
                pieces.append(piece)
                if len(pieces) == HELD:
                    setup.proxy.kill()
                    setup.proxy.start()
                    release(setup.upstream)
    assert len(pieces) == TOKENS
    assert any(note.startswith("resumed") for note in notes), notes


def connected(setup: Setup, port: int, notes: list[str] | None = None) -> Any:
    return llcuda_net.sync.connect(
        f"127.0.0.1:{port}",
        token=TOKEN,
        tls_ca=setup.proxy.certificates.authority,
        tls=True,
        on_note=(notes if notes is not None else []).append,
        reconnect=PATIENCE,
    )


def test_http_comes_through_the_port_of_our_own_protocol(setup: Setup) -> None:
    if setup.proxy.own_port is None:
        return
    context = ssl.create_default_context(cafile=str(setup.proxy.certificates.authority))
    url = f"https://127.0.0.1:{setup.proxy.own_port}/healthz"
    assert httpx.get(url, verify=context, timeout=PATIENCE).status_code == 200


def test_a_large_upload(setup: Setup) -> None:
    content = hashlib.shake_256(b"a file").digest(40 << 20)
    with setup.http as http:
        made = http.post(
            "/v1/files", files={"file": ("large.bin", content)}, data={"purpose": "user_data"}
        )
        assert made.status_code == 200, made.text
        assert made.json()["bytes"] == len(content)
        back = http.get(f"/v1/files/{made.json()['id']}/content")
        assert hashlib.sha256(back.content).digest() == hashlib.sha256(content).digest()
        http.delete(f"/v1/files/{made.json()['id']}")


def test_what_is_too_large_is_refused_by_the_server(setup: Setup) -> None:
    """And says so: the proxy has no limit of its own that comes first."""
    with setup.http as http:
        answer = http.post("/v1/chat/completions", content=b" " * (30 << 20))
    assert answer.status_code in (413, 415)
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_events_come_as_they_happen(setup: Setup) -> None:
    release(setup.upstream)
    with setup.http as http, http.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert json.loads(next(data(lines)))["snapshot"] is True
        asked = http.post("/v1/chat/completions", json=body(stream=False))
        generation = asked.headers["x-llcuda-generation"]
        for line in data(lines):
            if any(one["id"] == generation for one in json.loads(line).get("ended", [])):
                break


def data(lines: Iterator[str]) -> Iterator[str]:
    return (line[6:] for line in lines if line.startswith("data: "))


def test_a_client_that_leaves_frees_its_slot(setup: Setup) -> None:
    def running() -> int:
        with setup.http as http:
            return int(http.get("/v1/status").json()["requests"]["running"])

    for stream in (True, False):
        with setup.http as http:
            if stream:
                with http.stream("POST", "/v1/chat/completions", json=body()) as answer:
                    next(events(answer.iter_lines()))
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post("/v1/chat/completions", json=body(stream=False), timeout=2)
        wait_until(lambda: running() == 0, f"the slot is free ({stream=})")


def test_health_and_metrics(setup: Setup) -> None:
    with setup.http as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        assert http.get("/metrics").status_code == 404


def test_the_page_signs_in_over_tls(setup: Setup) -> None:
    """Its Origin is the proxy's, its cookie one of TLS, though llcuda-server has none."""
    with setup.http as http:
        del http.headers["Authorization"]
        http.headers.update({"Origin": setup.proxy.url, "Sec-Fetch-Site": "same-origin"})
        assert "<title>" in http.get("/").text
        answer = http.post("/v1/session", json={"token": TOKEN})
        assert answer.status_code in (200, 201), answer.text
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        assert "; Secure" in cookie
        assert http.get("/v1/session").json()["user"]["name"] == "me"
        assert http.get("/v1/models").status_code == 200
