"""`llcuda models list`, `show` and `rm`: what they print and remove, and their exit codes."""

from __future__ import annotations

import io
import json
import mmap
import sys
from pathlib import Path
from typing import Any

import pytest

from llcuda_net.cli.main import main
from llcuda_net.cli.models import facts
from llcuda_net.cli.models.facts import Machine, parameters_text
from llcuda_net.models.files import elsewhere
from llcuda_net.models.files.machine import users_of
from tests.support.cli.fake_terminal import EVIL, FakeTerminal, is_obeyed
from tests.support.models.caches import hub_file, ollama_model
from tests.support.models.gguf_files import LLAMA, Value, write_gguf, write_split

GB = 10**9
CLIP: dict[str, Value] = {"general.architecture": "clip", "general.file_type": 1}
CHAT: dict[str, Value] = {
    **LLAMA,
    "general.name": "Some Model",
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.tokens": [str(number) for number in range(300)],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our folder; this machine has no other models."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("LLAMA_CACHE", raising=False)
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLCUDA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(elsewhere, "_OLLAMA_SERVICE", tmp_path / "service")
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: Machine(8 * GB, None)))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def run(*arguments: str) -> int:
    return main(["models", *arguments])


def documents(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- list --------------------------------------------------------------------------------------


def test_list_shows_whose_models_are_here(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(folder / "mine.gguf", CHAT)
    (folder / "late.gguf.part").write_bytes(b"")
    hub_file(tmp_path / "home" / ".cache" / "huggingface" / "hub", "o/r", "theirs-Q8_0.gguf")
    ollama = tmp_path / "home" / ".ollama" / "models"
    ollama.mkdir(parents=True)
    ollama_model(ollama, "llama3.2:1b", write_gguf(tmp_path / "x", {**LLAMA, "general.name": "x"}))
    assert run("list") == 0
    printed = capsys.readouterr()
    heads, *rows = [line.split() for line in printed.out.splitlines()]
    assert heads[:4] == ["NAME", "FROM", "SIZE", "QUANT"]
    assert [row[:2] for row in rows] == [
        ["mine", "ours"],
        ["o/r/theirs-Q8_0", "Hugging"],
        ["llama3.2:1b", "Ollama"],
    ]
    assert rows[0][4:8] == ["Q4_K_M", "24", "4096", "chat"]
    assert all(row[-1] == "yes" for row in rows)
    assert printed.err == (
        "late.gguf.part (ours) cannot be used: its download has not finished: pull it again, or "
        "remove the file\n"
    )
    assert run("list", "--ours") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_list_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = write_split(folder, "big", 2)
    (folder / "cut.gguf").write_bytes(b"GGUF")
    assert run("list", "--json", "--slots", "2", "--ctx", "1024") == 0
    big, cut = documents(capsys)
    assert (big["name"], big["source"], big["problem"]) == ("big", "models", None)
    assert big["files"] == [str(part) for part in parts]
    assert big["bytes"] == sum(part.stat().st_size for part in parts)
    assert (big["memory"]["ctx"], big["memory"]["slots"]) == (1024, 2)
    assert big["memory"]["kv_cache"] == 2 * 1024 * 2 * (2 * 2 * 16) * 2  # f16, layers, heads
    assert big["memory"]["fits"] == "yes"
    assert big["chat_template"] is False
    assert "truncated" in cut["problem"]
    assert "memory" not in cut


def test_list_without_any_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"there are no models on this machine, nor in {folder}: llcuda models pull gets some\n"
    )
    assert run("list", "--models", str(folder / "absent"), "--ours", "--json") == 0
    assert capsys.readouterr().out == ""


def test_names_command_no_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(folder / f"x{EVIL}.gguf")
    write_gguf(folder / "fine.gguf", {**CHAT, "general.name": EVIL, "general.architecture": EVIL})
    out, err = FakeTerminal(), FakeTerminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("list") == 0
    assert run("show", "fine") == 0
    assert "rename it" in err.text
    assert not any(map(is_obeyed, out.text + err.text))


@pytest.mark.parametrize(
    ("host", "gpu", "fits"),
    [
        (None, None, None),
        (8 * GB, None, "yes"),
        (10**6, None, "no"),
        (8 * GB, 8 * GB, "GPU"),
        (8 * GB, 10**6, "yes"),
        (500 << 20, 1050 << 20, "in part on the GPU"),
        (10**6, 8 * GB, "no"),
    ],
)
def test_where_a_model_fits(
    host: int | None,
    gpu: int | None,
    fits: str | None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_gguf(folder / "a.gguf", CHAT)
    if fits == "in part on the GPU":
        write_gguf(folder / "a.gguf", CHAT, {"blk.0.w": 400 << 18, "blk.1.w": 400 << 18})
    if fits == "no" and gpu:
        write_gguf(folder / "a.gguf", CHAT, {f"blk.{n}.w": 8 << 30 for n in range(2)})
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls: Machine(host, gpu)))
    assert run("list", "--json", "--ctx", "256") == 0
    assert documents(capsys)[0]["memory"]["fits"] == fits


def test_parameters_are_written_as_the_field_does() -> None:
    texts = [parameters_text(n) for n in (5, 1500, 134_515_008, 1_235_814_432, 70_553_706_496)]
    assert texts == ["5", "1.5K", "135M", "1.2B", "70.6B"]


def test_this_machine_is_asked_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    here = facts.Machine.here()
    assert here.host is None or here.host > 10**6


# -- show --------------------------------------------------------------------------------------


def test_show_says_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_gguf(folder / "mine.gguf", CHAT)
    assert run("show", "mine") == 0
    lines = capsys.readouterr().out.splitlines()
    facts = {line[:15].strip(): line[15:].strip() for line in lines[: lines.index("")]}
    assert facts == {
        "name": "mine",
        "title": "Some Model",
        "from": "ours",
        "file": str(path),
        "kind": "chat",
        "size": f"{path.stat().st_size / 1000:.1f} kB ({path.stat().st_size:,} bytes)",
        "architecture": "llama",
        "parameters": "24 (24)",
        "quantisation": "Q4_K_M",
        "layers": "2",
        "width": "64",
        "attention heads": "4, with keys and values of 2",
        "vocabulary": "300 tokens",
        "trained context": "4,096 tokens",
        "chat template": "yes",
        "KV per token": "256 B at 16 bits",
    }
    table = lines[lines.index("") + 1 :]
    assert table[0] == "memory, estimated, for 4 slots:"
    assert [line.split()[0] for line in table[1:]] == ["CONTEXT", "2,048", "4,096"]


def test_show_by_path_and_by_source(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = write_gguf(folder / "m.gguf", CHAT)
    theirs = write_gguf(tmp_path / "home/.lmstudio/models/o/r/m.gguf", CHAT)
    path = write_gguf(tmp_path / "else where.gguf", CHAT)
    for name, source, file in [
        ("m", "models", ours),
        ("lmstudio:m", "lmstudio", theirs),
        (str(path), "file", path),
    ]:
        assert run("show", "--json", name) == 0
        (found,) = documents(capsys)
        assert (found["source"], found["path"]) == (source, str(file))
        assert [each["ctx"] for each in found["contexts"]] == [2048, 4096]
        assert found["kv_bytes_per_token"] == 256
    assert run("show", "--ctx", "512", "--slots", "1", "--json", "m") == 0
    assert [each["ctx"] for each in documents(capsys)[0]["contexts"]] == [512]


def test_show_what_is_not_there_or_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(folder / "smollm2.gguf", CHAT)
    (folder / "cut.gguf").write_bytes(b"GGUF")
    for name, says in [
        ("smollm", "there is no model smollm on this machine; did you mean smollm2?"),
        ("zzz", "there is no model zzz on this machine: see llcuda models list"),
        ("cut", "is truncated: it ends inside its header"),
        ("/absent/x.gguf", "model file /absent/x.gguf does not exist"),
    ]:
        assert run("show", name) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert says in printed.err
        assert printed.err.count("\n") == 1
    for arguments in (["show"], ["show", "a", "b"], ["list", "--slots", "0"], ["list", "x"]):
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2
    capsys.readouterr()


def test_show_an_adapter_has_no_memory_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(folder / "lora.gguf", {**LLAMA, "general.type": "adapter"})
    assert run("show", "lora") == 0
    out = capsys.readouterr().out
    assert "kind             adapter" in out
    assert "memory" not in out


# -- rm ----------------------------------------------------------------------------------------


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_rm_removes_all_files_of_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_split(folder / "see", "see", 2)
    write_gguf(folder / "see" / "mmproj-f16.gguf", CLIP)
    write_gguf(folder / "other.gguf")
    (folder / ".pull").mkdir()
    (folder / ".pull" / "see.json").write_text("{}")
    (folder / ".pull" / "other.json").write_text("{}")
    assert run("rm", "see", "--yes") == 0
    assert capsys.readouterr().out.startswith("removed see (3 files, ")
    assert left(folder) == {"other.gguf", ".pull/other.json"}
    assert not (folder / "see").exists()


def test_rm_keeps_a_projector_that_another_model_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("see-Q4_0", "see-Q8_0"):
        write_gguf(folder / "see" / f"{name}.gguf")
    write_gguf(folder / "see" / "mmproj-f16.gguf", CLIP)
    assert run("rm", "--yes", "--json", "see-Q4_0") == 0
    (gone,) = documents(capsys)
    assert gone["removed"] == [str(folder / "see" / "see-Q4_0.gguf")]
    assert gone["kept"] == [str(folder / "see" / "mmproj-f16.gguf")]
    assert run("rm", "--yes", "see-Q8_0") == 0
    assert left(folder) == set()
    assert folder.exists()


def test_rm_of_both_models_takes_the_projector(folder: Path) -> None:
    for name in ("see-Q4_0", "see-Q8_0"):
        write_gguf(folder / "see" / f"{name}.gguf")
    write_gguf(folder / "see" / "mmproj-f16.gguf", CLIP)
    assert run("rm", "--yes", "see-Q8_0", "see-Q4_0") == 0
    assert left(folder) == set()


def test_rm_of_what_is_broken(folder: Path) -> None:
    (folder / "late.gguf.part").write_bytes(b"")
    (folder / "cut.gguf").write_bytes(b"GGUF")
    write_split(folder, "half", 3)[0].unlink()
    assert run("rm", "--yes", "late.gguf.part", "cut", "half-00002-of-00003.gguf") == 0
    assert left(folder) == set()


def test_rm_touches_only_our_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write_gguf(tmp_path / "home/.lmstudio/models/o/r/m.gguf")
    write_gguf(tmp_path / "far" / "far.gguf")
    (folder / "linked").symlink_to(tmp_path / "far")
    (folder / "link.gguf").symlink_to(theirs)
    assert run("rm", "--yes", "m") == 1
    assert f"m is of LM Studio, in {theirs}, and stays: rm" in capsys.readouterr().err
    assert run("rm", "--yes", "far") == 1
    assert "only linked there" in capsys.readouterr().err
    assert run("rm", "--yes", "link") == 0  # the link, which is ours
    assert not (folder / "link.gguf").is_symlink()
    assert theirs.exists()
    assert (tmp_path / "far" / "far.gguf").exists()


def test_rm_of_one_that_is_not_there_removes_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(folder / "smollm2.gguf")
    assert run("rm", "--yes", "smollm2", "smollm3") == 1
    assert "there is no model smollm3" in capsys.readouterr().err
    assert left(folder) == {"smollm2.gguf"}


def test_rm_asks(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(folder / "a.gguf")
    assert run("rm", "a") == 2  # nobody to ask
    assert "would go; nothing was removed: to do so, add --yes" in capsys.readouterr().err
    for answer, code in (("\n", 1), ("no\n", 1), ("", 1), ("Yes\n", 0)):
        err = FakeTerminal()
        keyboard = io.StringIO(answer)
        monkeypatch.setattr(keyboard, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", keyboard)
        monkeypatch.setattr("sys.stderr", err)
        assert left(folder) == {"a.gguf"}
        assert run("rm", "a") == code
        assert err.text.startswith("remove a (1 file, ")
    assert left(folder) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_rm_refuses_what_is_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_gguf(folder / "a b.gguf")
    other = write_gguf(folder / "other.gguf")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert users_of([path])
        assert not users_of([other])
        assert run("rm", "--yes", "a b") == 1
        assert "a b is in use by " in capsys.readouterr().err
        assert run("rm", "--yes", "other") == 0
    assert run("rm", "--yes", "a b") == 0


# -- show --check ------------------------------------------------------------------------------


def test_show_check_says_what_is_in_the_weights(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(folder / "good.gguf", CHAT)
    assert run("show", "--check", "good") == 0
    out = capsys.readouterr().out
    assert "token_embd.weight  F32" in out
    assert "checked 3 tensors, 24 weights: none is NaN, infinite or absurd" in out
    assert run("show", "--check", "--json", "good") == 0
    weights = documents(capsys)[0]["weights"]
    assert (weights["problems"], weights["skipped"]) == (0, 0)
    assert weights["tensors"][0]["nan"] == 0


def test_show_check_refuses_a_model_that_holds_what_it_must_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_gguf(folder / "bad.gguf", CHAT)
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\x7f")
    assert run("show", "--check", "bad") == 1
    said = capsys.readouterr()
    assert "bad is damaged or badly made: tensor blk.1.w has 1 NaN; get the file anew" in said.err
    assert run("show", "--check", "--json", "bad") == 1
    assert documents(capsys)[0]["weights"]["problems"] == 1
    assert run("show", "bad") == 0  # only the header was asked for
