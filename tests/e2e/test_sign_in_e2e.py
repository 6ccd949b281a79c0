"""Processes: a browser that is signed in stays so over kill -9, and not beyond its token."""

from __future__ import annotations

import json
import signal
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.support.processes import RunningServer, running_server
from tests.support.steady import ENDLESS, endless_upstream

ANN, BOB = "token-of-ann-12345", "token-of-bob-12345"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{ANN} name=ann role=admin\n{BOB} name=bob\n", encoding="utf-8")
    path.chmod(0o600)
    return path


class Browser(httpx.Client):
    """Sends what a page of the server sends."""

    def __init__(self, port: int, **options: Any) -> None:
        scheme = "https" if "verify" in options else "http"
        origin = f"{scheme}://localhost:{port}"
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        super().__init__(base_url=origin, headers=headers, timeout=60, **options)

    def sign_in(self, token: str) -> dict[str, Any]:
        answer = self.post("/v1/session", json={"token": token})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        return found

    @property
    def user(self) -> str | None:
        found = self.get("/v1/session").json()["user"]
        return None if found is None else str(found["name"])


def test_it_outlives_the_server_and_ends_with_its_token(tokens: Path, tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path / "data"), "--auth-token-file", str(tokens))
    with running_server(*arguments) as server, Browser(server.port) as browser:
        assert "llcuda" in browser.get("/").text
        assert browser.user is None
        browser.sign_in(BOB)
        assert browser.user == "bob"
        kept = [(one.name, one.value) for one in browser.cookies.jar]
        (name, id_), *others = kept
        assert (name, others) == (f"llcuda_{server.port}", [])
        assert server.stop(signal.SIGKILL) < 0
        log = server.log()
    with (
        endless_upstream() as upstream,
        running_server(*arguments, "--upstream", upstream) as server,
        Browser(server.port) as browser,
    ):
        browser.cookies.set(f"llcuda_{server.port}", str(id_))  # the port is another one
        assert browser.user == "bob"
        messages = [{"role": "user", "content": "Hello"}]
        body = {"messages": messages, "stream": True, "max_tokens": ENDLESS}
        leaving = {"x-llcuda-on-disconnect": "cancel"}
        path = "/v1/chat/completions"
        with browser.stream("POST", path, json=body, headers=leaving) as stream:
            lines = stream.iter_lines()
            assert next(lines)
            tokens.write_text(f"{ANN} name=ann role=admin\n", encoding="utf-8")
            server.process.send_signal(signal.SIGHUP)
            last = [line for line in lines if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"
        with Browser(server.port, cookies=browser.cookies) as again:  # that connection has ended
            assert again.user is None
        log += server.log()
    assert str(id_) not in log
    assert BOB not in log


def test_over_tls_the_cookie_is_for_tls_only(tokens: Path, tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost")
    for name, blobs in (
        ("cert", certificate.cert_chain_pems),
        ("key", [certificate.private_key_pem]),
    ):
        (tmp_path / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
    (tmp_path / "key").chmod(0o600)
    ca.cert_pem.write_to_path(str(tmp_path / "ca"))
    tls = ("--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key"))
    arguments = ("--store", "none", "--auth-token-file", str(tokens), *tls)
    with running_server(*arguments) as server, _over_tls(server, tmp_path) as browser:
        browser.sign_in(ANN)
        (cookie,) = browser.cookies.jar
        assert cookie.name == f"__Host-llcuda_{server.port}"
        assert cookie.secure
        assert browser.user == "ann"
        plain = {"Origin": f"http://localhost:{server.port}"}
        assert browser.post("/v1/conversations", json={}, headers=plain).status_code == 403
        browser.cookies.clear()
        browser.cookies.set(f"llcuda_{server.port}", str(cookie.value))
        assert browser.user is None


def _over_tls(server: RunningServer, folder: Path) -> Browser:
    return Browser(server.port, verify=ssl.create_default_context(cafile=str(folder / "ca")))
