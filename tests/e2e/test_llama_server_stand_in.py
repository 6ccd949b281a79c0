"""The stand-in for `llama-server` is as the real one, where there is one, in all that we use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest

from tests.support.llama_server.behaviour import OLDER, Device
from tests.support.llama_server.binary import real_llama_server
from tests.support.llama_server.stand_in import stand_in
from tests.support.processes import PATIENCE, children, wait_until
from tests.support.upstream.tiny_model import write_tiny_model

DEMO_MODEL = Path(__file__).parents[2] / "llcuda_net/data/demo.gguf"
_LISTENS = re.compile(rb"listening on (http://\S+)")
_KEY = "the-key"


def _run(program: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
        timeout=PATIENCE,
        check=False,
    )


@dataclass(frozen=True)
class _Serving:
    process: subprocess.Popen[bytes]
    url: str
    key: str

    def ask(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)


@contextlib.contextmanager
def _serving(program: Path, *arguments: str) -> Iterator[_Serving]:
    process = subprocess.Popen(
        [str(program), "--port", "0", "--model", str(DEMO_MODEL), *arguments],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LLAMA_API_KEY": _KEY},
    )
    assert process.stderr is not None
    try:
        found = next(filter(None, map(_LISTENS.search, process.stderr)))
        yield _Serving(process, found[1].decode(), _KEY)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_help_and_version_and_devices(llama_server_binary: Path) -> None:
    helped = _run(llama_server_binary, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("----- common params -----\n\n-h,    --help, --usage ")
    assert "\n-c,    --ctx-size N                     " in helped.stdout
    assert "(env: LLAMA_API_KEY)" in helped.stdout
    version = _run(llama_server_binary, "--version")
    assert (version.returncode, version.stdout) == (0, "")
    assert re.match(r"version: .*build \d+.*\nbuilt with .* for .*\n$", version.stderr)
    devices = _run(llama_server_binary, "--list-devices")
    assert devices.returncode == 0
    assert devices.stdout.startswith("Available devices:\n  ")


@pytest.mark.llama_server
def test_every_option_of_the_stand_in_is_one_of_the_real_one(tmp_path: Path) -> None:
    real = real_llama_server()
    if real is None:
        pytest.skip("no llama-server here: make test-llama-server builds one")
    name = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")

    def options(text: str) -> dict[str, str]:
        lines = [line for line in text.splitlines() if re.match(r"--?[a-z]", line)]
        heads = [re.split(r" {2,}(?!-)", line)[0] for line in lines]
        return {one: head for head in heads for one in name.findall(head)}

    theirs = options(_run(real, "--help").stdout)
    for one, head in options(_run(stand_in(tmp_path).path, "--help").stdout).items():
        assert theirs.get(one) == head


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nope"], "error: invalid argument: --nope\n"),
        (["-m"], 'error while handling argument "-m": expected value for argument\n\nusage:\n-m,'),
        (["--port", "x"], 'error while handling argument "--port": stoi\n\nusage:\n--port PORT '),
        (
            ["--flash-attn", "maybe"],
            'error while handling argument "--flash-attn": error: unknown value for --flash-attn',
        ),
        (["-ctk", "q9"], 'error while handling argument "-ctk": Unsupported cache type: q9\n\n'),
        (["--rope-scaling", "no"], 'error while handling argument "--rope-scaling": invalid value'),
    ],
)
def test_wrong_options(llama_server_binary: Path, arguments: list[str], words: str) -> None:
    ended = _run(llama_server_binary, *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(words)


def test_it_serves_as_it_is_told_to_and_ends_when_asked(
    llama_server_binary: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    template.write_text("{% for m in messages %}[{{ m.content }}|{{ mood }}]{% endfor %}")
    told = (
        *("--parallel", "2", "--ctx-size", "512", "--kv-unified", "--kv-unified-per-slot", "256"),
        *("--alias", "small", "--embeddings", "--pooling", "mean", "--metrics", "--no-ui"),
        *("--cache-ram", "0", "--cache-type-k", "q8_0", "--flash-attn", "on", "-t", "1"),
        *("--rope-scale", "2", "--jinja", "--chat-template-file", str(template)),
        *("--chat-template-kwargs", '{"mood": "calm"}'),
    )
    with _serving(llama_server_binary, *told) as server:
        props = server.ask("/props")
        assert (props["total_slots"], props["model_alias"]) == (2, "small")
        assert props["model_path"] == str(DEMO_MODEL)
        assert (props["ui"], props["endpoint_metrics"]) == (False, True)
        slots = server.ask("/slots")
        assert [slot["n_ctx"] for slot in slots] == [256, 256]
        said = server.ask("/apply-template", {"messages": [{"role": "user", "content": "hi"}]})
        assert said["prompt"] == "[hi|calm]"
        answer = server.ask("/completion", {"prompt": "a", "n_predict": 3, "ignore_eos": True})
        assert answer["tokens_predicted"] == 3
        assert len(server.ask("/embedding", {"content": "x"})[0]["embedding"][0]) == 192
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _Serving(server.process, server.url, "another").ask("/props")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def _no_model(folder: Path) -> tuple[list[str], str]:
    (folder / "m.gguf").write_bytes(b"GGUX" + bytes(64))
    return [], "invalid magic characters: 'GGUX', expected 'GGUF'"


def _no_architecture(folder: Path) -> tuple[list[str], str]:
    write_tiny_model(folder / "m.gguf", architecture="abacus")
    return [], "error loading model: unknown model architecture: 'abacus'"


def _no_file(folder: Path) -> tuple[list[str], str]:
    return [], f"failed to open GGUF file '{folder}/m.gguf' (No such file or directory)"


def _no_projector(folder: Path) -> tuple[list[str], str]:
    write_tiny_model(folder / "m.gguf")
    mmproj = str(folder / "m.gguf")
    return [
        "--mmproj",
        mmproj,
    ], f"mtmd_init_from_file: error: Failed to load CLIP model from {mmproj}"


def _no_adapter(folder: Path) -> tuple[list[str], str]:
    write_tiny_model(folder / "m.gguf")
    lora = str(folder / "m.gguf")
    return ["--lora", lora], f"common_init_: failed to load lora adapter '{lora}'"


def _no_draft(folder: Path) -> tuple[list[str], str]:
    write_tiny_model(folder / "m.gguf")
    return ["-md", f"{folder}/d.gguf"], f"load_model: failed to load draft model, '{folder}/d.gguf'"


@pytest.mark.parametrize(
    "broken", [_no_model, _no_architecture, _no_file, _no_projector, _no_adapter, _no_draft]
)
def test_what_does_not_load(llama_server_binary: Path, tmp_path: Path, broken: Any) -> None:
    options, words = broken(tmp_path)
    ended = _run(llama_server_binary, "--port", "0", "-m", f"{tmp_path}/m.gguf", *options)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert words in ended.stderr
    assert ended.stderr.endswith(" E srv  llama_server: exiting due to model loading error\n")


def test_a_missing_split(llama_server_binary: Path, tmp_path: Path) -> None:
    whole = write_tiny_model(tmp_path / "whole.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    _copy_as_first_split(whole, first)
    ended = _run(llama_server_binary, "--port", "0", "-m", str(first))
    assert ended.returncode == 1
    missing = tmp_path / "m-00002-of-00002.gguf"
    assert f"failed to load GGUF split from {missing}" in ended.stderr


def _copy_as_first_split(whole: Path, first: Path) -> None:
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(str(first), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        of = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    writer.add_uint16("split.no", 0)
    writer.add_uint16("split.count", 2)
    writer.add_int32("split.tensors.count", len(reader.tensors))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_it_listens_on_the_port_or_says_why_not(llama_server_binary: Path) -> None:
    with _serving(llama_server_binary) as server:
        port = server.url.rpartition(":")[2]
        ended = _run(llama_server_binary, "--port", port, "-m", str(DEMO_MODEL))
    assert ended.returncode == 1
    assert f"couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}" in ended.stderr


def test_an_older_build(tmp_path: Path) -> None:
    older = stand_in(tmp_path, OLDER)
    helped = _run(older.path, "--help").stdout
    assert "--cache-ram" not in helped
    assert "-fa,   --flash-attn                     flash" in helped
    assert _run(older.path, "--cache-ram", "0").stderr == ("error: invalid argument: --cache-ram\n")
    assert _run(older.path, "--version").stderr.startswith(
        "version: 5200 (0a1b2c3d)\nbuilt with cc"
    )
    with _serving(older.path, "--flash-attn") as server:
        assert server.ask("/health") == {"status": "ok"}


def test_devices_that_it_claims(tmp_path: Path) -> None:
    claims = stand_in(tmp_path, devices=(Device(), Device("CUDA1", free=5)))
    assert _run(claims.path, "--list-devices").stdout == (
        "Available devices:\n"
        "  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)\n"
        "  CUDA1: NVIDIA H200 (143771 MiB, 5 MiB free)\n"
    )


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("no memory", "failed to initialize the context: failed to allocate buffer for kv cache"),
        ("no GPU memory", "error loading model: unable to allocate CUDA0 buffer"),
        ("architecture", "error loading model: unknown model architecture: 'abacus'"),
        ("split", "failed to load GGUF split from m.gguf-00002-of-00003.gguf"),
        ("mmproj", "error: mismatch between text model (n_embd = 192) and mmproj (n_embd = 2048)"),
    ],
)
def test_failures_that_it_is_told(tmp_path: Path, fail: str, words: str) -> None:
    fails = stand_in(tmp_path, fail=fail)
    ended = _run(fails.path, "-m", "m.gguf", "--mmproj", "p.gguf")
    assert ended.returncode == 1
    assert words in ended.stderr
    assert ended.stderr.endswith(" E srv  llama_server: exiting due to model loading error\n")


def test_it_crashes_at_first_and_then_serves(tmp_path: Path) -> None:
    crashes = stand_in(tmp_path, crash="load", starts=1)
    ended = _run(crashes.path, "-m", str(DEMO_MODEL), "--port", "0")
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr.endswith(f"load_model: loading model '{DEMO_MODEL}'\n")
    with _serving(crashes.path) as server:
        assert server.ask("/health") == {"status": "ok"}
        assert crashes.starts()[1:] == [server.process.pid]
        helpers = children(server.process.pid)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers), "all ended")
    crashes.tell(crash="ready", starts=None)
    with _serving(crashes.path) as server:
        assert server.process.wait(PATIENCE) == -signal.SIGSEGV
    crashes.tell(crash="help")
    assert _run(crashes.path, "--help").returncode == -signal.SIGSEGV


@pytest.mark.parametrize("where", ["help", "load"])
def test_it_hangs(tmp_path: Path, where: str) -> None:
    hangs = stand_in(tmp_path, hang=where)
    arguments = ["--help"] if where == "help" else ["-m", str(DEMO_MODEL)]
    process = subprocess.Popen(
        [str(hangs.path), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.5)
    process.kill()
    process.communicate(timeout=PATIENCE)
