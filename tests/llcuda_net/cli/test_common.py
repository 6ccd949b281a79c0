"""What every command does: warn of variables that nothing reads."""

from __future__ import annotations

import pytest

from llcuda_net.cli.common import run_command


def test_variables_that_nothing_reads_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLCUDA_SERVR", "a:1")
    monkeypatch.setenv("LLCUDA_\x1b[2J", "x")
    monkeypatch.setenv("LLCUDA_TOKEN", "x")
    assert run_command("llcuda-client", lambda: 0) == 0
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("llcuda-client: warning: there is no variable 'LLCUDA_\\x1b[2J'")
    assert second.endswith("there is no variable LLCUDA_SERVR: did you mean LLCUDA_SERVER?")
    assert run_command("llcuda-server", lambda: 0, warn=False) == 0
    assert capsys.readouterr().err == ""
