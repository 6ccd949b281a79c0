"""The campaign of backups: a round comes out well, a wrong backup does not."""

from __future__ import annotations

import pytest

from tools import backup_campaign


def test_a_round_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert backup_campaign.main(["--rounds", "1", "--seed", "3"]) == 0, capsys.readouterr().out
    assert "violations none" in capsys.readouterr().out


@pytest.mark.slow
def test_a_backup_of_two_moments_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert backup_campaign.main(["--rounds", "5", "--break"]) == 1
    assert "had begun before the backup, and is not there" in capsys.readouterr().out
