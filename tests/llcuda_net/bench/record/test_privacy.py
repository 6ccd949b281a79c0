"""A record goes to strangers: it says nothing of who made it, and where."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from llcuda_net.bench.record.privacy import Scrubber, host_of, is_local


@pytest.fixture
def scrubber(monkeypatch: pytest.MonkeyPatch) -> Scrubber:
    monkeypatch.setattr(socket, "gethostname", lambda: "zaphods-box.betelgeuse.example")
    monkeypatch.setattr(Path, "home", lambda: Path("/far/zaphod"))
    return Scrubber(["gpu-7.lab.example", "10.1.2.3", "server"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach gpu-7.lab.example:9000", "cannot reach host-1:9000"),
        ("http://me:secret@gpu-7.lab.example:8080/v1?key=abc", "http://host-1:8080/v1"),
        ("https://unheard.example/v1/models gave no list", "https://host-6/v1/models gave no list"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("10.1.2.3 and 10.1.2.33", "host-2 and 10.1.2.33"),
        ("the server is on this machine; server:9000 is not", None),
        ("llama-server b1-zaphods-box", "llama-server b1-zaphods-box"),
        ("on zaphods-box.betelgeuse.example or zaphods-box", "on host-5 or host-4"),
        ("/home/zaphod/models/llama 3/x.gguf", "llama 3/x.gguf"),
        ("/far/zaphod/a/b.json", "b.json"),
        ("~zaphod/a.json or ~/x/b.json", "a.json or b.json"),
        ("C:\\Users\\zaphod\\m.gguf", "m.gguf"),
        ("/v1/models gave no list", "/v1/models gave no list"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("tokens/s, 3/4, and/or", "tokens/s, 3/4, and/or"),
    ],
)
def test_texts(scrubber: Scrubber, text: str, shown: str | None) -> None:
    shown = shown or "the server is on this machine; host-3:9000 is not"
    assert scrubber.text(text) == shown


def test_commands(scrubber: Scrubber) -> None:
    given = [
        *("llcuda", "bench", "latency", "--server", "gpu-7.lab.example:9000,127.0.0.1:1"),
        *(
            "--token-file",
            "../zaphod/token",
            "--json=/far/zaphod/out.json",
            "--requests",
            "x/r.csv",
        ),
        *("--prompts", "@zaphod/p.jsonl", "--arrivals", "trace:/far/zaphod/t.csv"),
        *("--direct=https://me:pw@gpu-7.lab.example/v1?k=1", "--direct-model", "org/name"),
        *("--slo", "ttft=500ms,tpot=50ms", "--rates", "1,2", "--prompts", "synthetic:20-200"),
    ]
    assert scrubber.command(given) == [
        *("llcuda", "bench", "latency", "--server", "host-1:9000,127.0.0.1:1"),
        *("--token-file", "token", "--json=out.json", "--requests", "r.csv"),
        *("--prompts", "@p.jsonl", "--arrivals", "trace:t.csv"),
        *("--direct=https://host-1/v1", "--direct-model", "org/name"),
        *("--slo", "ttft=500ms,tpot=50ms", "--rates", "1,2", "--prompts", "synthetic:20-200"),
    ]


def test_values_keep_their_names(scrubber: Scrubber) -> None:
    found = scrubber.value(
        {
            "server": "server",
            "host": "zaphods-box",
            "address": "http://server:80/v1",
            "errors": {"cannot connect to 10.1.2.3:9000": 2},
            "each": [{"host": "10.1.2.3", "number": 1.5, "none": None}],
            "model": "server",
        }
    )
    assert found == {
        "server": "host-3",
        "host": "host-4",
        "address": "http://host-3:80/v1",
        "errors": {"cannot connect to host-2:9000": 2},
        "each": [{"host": "host-2", "number": 1.5, "none": None}],
        "model": "server",
    }
    assert "zaphod" not in json.dumps(found)


def test_hosts_of_addresses() -> None:
    for address, host in (
        ("127.0.0.1:9000", "127.0.0.1"),
        ("[::1]:9000", "::1"),
        ("http://me:pw@a.example:1/v1", "a.example"),
        ("https://a.example", "a.example"),
        ("a", "a"),
        ("", ""),
    ):
        assert host_of(address) == host
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "started"):
        assert is_local(host)
    assert not is_local("10.0.0.1")
    assert not is_local("localhost.example")
