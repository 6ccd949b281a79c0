"""The command line of llcuda-server."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.cli.server import OTHERS_OPTIONS, main, make_parser


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("-m", "--model FILE"),
        ("-hf", "--model hf:OWNER/REPO:QUANT"),
        ("--ctx-size=4096", "--ctx N"),
        ("--models-dir", "--models DIR"),
    ],
)
def test_options_of_others(given: str, ours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([given, "x"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"there is no option {given.partition('=')[0]} here: use {ours}" in said


def test_what_is_ours_is_not_among_them() -> None:
    ours = {name for action in make_parser()._actions for name in action.option_strings}
    assert not ours & OTHERS_OPTIONS.keys()


def test_a_gpu_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llcuda_kernels.several.one_process.gpu_count", lambda: 2)
    where = ["--port", "0", "--data-dir", str(tmp_path)]
    assert main([*where, "--analysis-gpus", "0,5"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("error: --analysis-gpus: there is no GPU 5: GPUs 0 to 1 are there")
    assert len(said.splitlines()) == 1
