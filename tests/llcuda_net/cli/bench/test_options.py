"""What the options of the measurements take, and what their help shows."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from llcuda_net.cli.bench import options, tool
from llcuda_net.cli.bench.tool import command
from llcuda_net.cli.common import CommandError
from tests.llcuda_net.cli.bench.conftest import Bench


def test_times() -> None:
    for text, value in (("500ms", 0.5), ("2s", 2.0), ("1.5m", 90.0), ("3", 3.0)):
        assert options.seconds(text) == value
    for text in ("", "ms", "-1s", "1h", "1 s"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.seconds(text)


@pytest.mark.parametrize("name", ["latency", "throughput", "scaling"])
def test_no_time_is_no_measurement(bench: Bench, name: str) -> None:
    code, _, err = bench(name, "--target", "127.0.0.1:1", "--seconds", "0")
    assert code == 2
    assert "--seconds: must be above 0, not 0" in err


def test_objectives_and_lists() -> None:
    assert options.slo("ttft=500ms,tpot=50ms") == {"ttft": 0.5, "tpot": 0.05}
    assert options.numbers("1,2,4.5") == [1.0, 2.0, 4.5]
    for wrong in ("p99=1s", "ttft", "ttft=x"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.slo(wrong)
    for wrong in ("", "2,1", "0,1", "x", "1,1"):
        with pytest.raises(argparse.ArgumentTypeError):
            options.numbers(wrong)


def test_help_has_an_example_of_each(bench: Bench) -> None:
    code, _, said = bench("--help")
    assert code == 0
    for name in ("latency", "throughput", "scaling"):
        assert f"llcuda bench {name} --" in said
        code, _, own = bench(name, "--help-all")
        assert code == 0
        for flag in ("--target", "--iters", "--max-tokens", "--n_predict", "--inflight", "--json",
                     "--cuda-work", "--cuda-iters", "--cuda-post", "examples:",
                     "exit codes:", f"  llcuda bench {name} --"):  # fmt: skip
            assert flag in own
        assert "synthetic" not in own.partition("what to ask")[0].partition("--prompts")[0]
    assert bench("nonsense")[0] == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io\n"
        "from llcuda_net.cli.bench.command import main\n"
        "for name in ('latency', 'throughput', 'scaling'):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    heavy = {"trio", "httpx", "msgspec", "numpy", "scipy", "matplotlib", "jinja2", "mpi4py"}
    assert not heavy & set(done.stdout.split())


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(tool, "find_spec", lambda name: None if name == "scipy" else name)
    with pytest.raises(CommandError, match="scipy"):
        tool.need_extra()
    code, _, said = bench("latency")
    assert code == 2
    assert said.strip().endswith("measuring needs scipy: pip install 'llcuda-net[bench]'")
    assert command("latency").prog in said
