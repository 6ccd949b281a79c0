"""The command line of llcuda-server."""

from __future__ import annotations

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
