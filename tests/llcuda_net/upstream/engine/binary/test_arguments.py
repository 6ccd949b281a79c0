"""The command line of a llama-server, for builds that differ in their options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.binary.arguments import command_line, shares_cache
from llcuda_net.upstream.engine.process import ChildSettings
from llcuda_net.upstream.engine.programs.program import Device, Program

#: A build of today, as far as it matters.
TAKES = {
    "--model": "FNAME", "--host": "HOST", "--port": "PORT", "--parallel": "N", "--ctx-size": "N",
    "--kv-unified": "", "--kv-unified-per-slot": "N", "--no-context-shift": "", "--cache-ram": "N",
    "--cache-type-k": "TYPE", "--cache-type-v": "TYPE", "--flash-attn": "[on|off|auto]",
    "--alias": "STRING", "--slots": "", "--metrics": "", "--offline": "", "--jinja": "",
    "--no-ui": "", "--no-webui": "", "--cors-origins": "ORIGINS", "--threads-http": "N",
    "--log-prefix": "", "--log-timestamps": "", "--threads": "N", "--threads-batch": "N",
    "--gpu-layers": "N", "--device": "<dev1,dev2,..>", "--fit": "[on|off]", "--embeddings": "",
    "--embedding": "", "--rerank": "", "--pooling": "{none,mean}", "--batch-size": "N",
    "--ubatch-size": "N", "--mmproj": "FILE", "--lora": "FNAME", "--lora-scaled": "FNAME:SCALE,...",
    "--model-draft": "FNAME", "--spec-type": "none,draft-simple", "--gpu-layers-draft": "N",
    "--chat-template-file": "FILE", "--rope-scaling": "{none,linear,yarn}", "--rope-scale": "N",
    "--rope-freq-base": "N", "--rope-freq-scale": "N", "--yarn-orig-ctx": "N",
}  # fmt: skip
TODAY = Program(Path("/bin/llama-server"), "11434", takes=TAKES, devices=())
CUDA = (Device("CUDA0", "NVIDIA H200"),)
SETTINGS = ChildSettings("/m.gguf", "m", 512, 3, 2, None, None, 7, "s3cret")


def without(program: Program, *flags: str, **more: str) -> Program:
    takes = {flag: behind for flag, behind in program.takes.items() if flag not in flags}
    return replace(program, takes=takes)


def line(program: Program = TODAY, **changes: Any) -> str:
    given = command_line(program, replace(SETTINGS, **changes), 8080)
    assert all(isinstance(word, str) for word in given)
    return " ".join(given)


def test_of_a_build_of_today() -> None:
    assert line() == (
        "/bin/llama-server --model /m.gguf --host 127.0.0.1 --port 8080 --parallel 3 "
        "--ctx-size 1536 --kv-unified --kv-unified-per-slot 512 --no-context-shift --cache-ram 7 "
        "--alias m --slots --metrics --offline --jinja --no-ui --cors-origins localhost "
        "--threads-http 11 --log-prefix --log-timestamps --threads 2 --threads-batch 2 "
        "--embeddings --pooling mean --batch-size 513 --ubatch-size 513"
    )
    assert "s3cret" not in line()


def test_only_what_the_build_has() -> None:
    old = without(
        TODAY, "--kv-unified", "--kv-unified-per-slot", "--no-context-shift", "--cache-ram",
        "--offline", "--no-ui", "--cors-origins", "--threads-http", "--log-prefix", "--embeddings",
    )  # fmt: skip
    assert line(old) == (
        "/bin/llama-server --model /m.gguf --host 127.0.0.1 --port 8080 --parallel 3 "
        "--ctx-size 1536 --alias m --slots --metrics --jinja --no-webui "
        "--log-timestamps --threads 2 --threads-batch 2 "
        "--embedding --pooling mean --batch-size 513 --ubatch-size 513"
    )


@pytest.mark.parametrize(
    ("program", "options", "shared"),
    [
        (TODAY, (), True),
        (TODAY, ("--no-kv-unified",), False),
        (TODAY, ("-no-kvu",), False),
        (without(TODAY, "--kv-unified-per-slot"), (), False),
        (without(TODAY, "--kv-unified"), (), False),
    ],
)
def test_whether_slots_share_a_cache(
    program: Program, options: tuple[str, ...], shared: bool
) -> None:
    assert shares_cache(program, options) is shared
    assert ("--kv-unified " in line(program, options=options)) is shared


def test_what_the_user_gives_comes_last() -> None:
    assert line(options=("--temp", "0", "--batch-size", "64")).endswith(
        "--ubatch-size 513 --temp 0 --batch-size 64"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, "--cache-type-k q8_0 --cache-type-v q4"),
        ({"flash_attn": "on"}, " --flash-attn on "),
        ({"mmproj": "/p.gguf"}, " --mmproj /p.gguf"),
        ({"lora": (("/a.gguf", 1.0), ("/b.gguf", 1.0))}, " --lora /a.gguf --lora /b.gguf"),
        ({"lora": (("/a.gguf", 0.5),)}, " --lora-scaled /a.gguf:0.5"),
        ({"draft": "/d.gguf"}, " --model-draft /d.gguf --spec-type draft-simple"),
        ({"draft": "/d.gguf", "draft_gpu_layers": 0}, " draft-simple --gpu-layers-draft 0"),
        ({"chat_template": "/t.jinja"}, " --chat-template-file /t.jinja"),
        ({"rope_scaling": "yarn", "rope_scale": 2.0}, " --rope-scaling yarn --rope-scale 2.0"),
        ({"rope_freq_base": 1e6, "yarn_orig_ctx": 4}, "base 1000000.0 --yarn-orig-ctx 4"),
        ({"rope_freq_scale": 0.5}, " --rope-freq-scale 0.5"),
        ({"gpu_layers": 9}, " --gpu-layers 9 "),
        ({"alias": "a,b"}, " --alias a_b "),
    ],
)
def test_what_a_model_may_have(changes: dict[str, Any], words: str) -> None:
    assert words in line(**changes)


@pytest.mark.parametrize(
    ("changes", "there", "not_there"),
    [
        ({"embeddings": False}, "--threads-batch 2", "--embeddings"),
        ({"embeddings": False}, "--threads-batch 2", "--batch-size"),
        ({"pooling": 2}, "--embeddings --batch-size", "--pooling"),
        ({"rerank": True}, "--rerank --batch-size", "--embeddings"),
        ({"pooling": 4}, "--rerank --batch-size", "--pooling"),
    ],
)
def test_what_it_is_for(changes: dict[str, Any], there: str, not_there: str) -> None:
    assert there in line(**changes)
    assert not_there not in line(**changes)


def test_layers_on_a_gpu() -> None:
    gpu = replace(TODAY, devices=CUDA)
    assert "--gpu-layers" not in line(gpu)  # it fits as many as it can
    assert "--gpu-layers 999 " in line(without(gpu, "--fit"))  # else it would hold none there
    assert "--gpu-layers 0 --device none " in line(gpu, gpu_layers=0)
    assert "--device" not in line(gpu, gpu_layers=5)
    assert "--gpu-layers" not in line(gpu_layers=0)  # of a build without any
    assert "--gpu-layers" not in line(without(TODAY, "--fit"))
    unknown = replace(TODAY, devices=None)
    assert "--gpu-layers 0 --device none " in line(unknown, gpu_layers=0)
    assert "--gpu-layers 999 " in line(without(unknown, "--fit"))


def test_older_ways() -> None:
    takes = {**TAKES, "--flash-attn": "", "--lora-scaled": "FNAME SCALE"}
    old = replace(TODAY, takes=takes)
    assert " --flash-attn --alias" in line(old, flash_attn="on")
    assert "--flash-attn" not in line(old, flash_attn="off")
    assert " --lora-scaled /a.gguf 0.5" in line(old, lora=(("/a.gguf", 0.5),))
    assert "--spec-type" not in line(without(TODAY, "--spec-type"), draft="/d.gguf")


@pytest.mark.parametrize(
    ("flag", "changes", "name"),
    [
        ("--cache-type-k", {"cache_type_k": "q8_0"}, "cache_type_k"),
        ("--mmproj", {"mmproj": "/p.gguf"}, "mmproj"),
        ("--lora", {"lora": (("/a.gguf", 1.0),)}, "lora"),
        ("--rope-scale", {"rope_scale": 2.0}, "rope_scale"),
        ("--rerank", {"rerank": True}, "the role rerank"),
    ],
)
def test_what_is_asked_for_and_not_there(flag: str, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(EngineError, match=f"/bin/llama-server .11434. has no {flag}, which {name}"):
        line(without(TODAY, flag), **changes)


def test_a_path_that_would_be_two() -> None:
    with pytest.raises(EngineError, match="a comma or a colon"):
        line(lora=(("/a,b.gguf", 0.5),))
