"""What an audit says, and that no answer is not a good one."""

from __future__ import annotations

from typing import Any

import pytest

from tools import audit_lock

FINE: list[dict[str, Any]] = [{"name": "a", "version": "1", "vulns": []}]
WRONG: list[dict[str, Any]] = [
    *FINE,
    {"name": "b", "version": "2", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2.1"]}]},
]
SKIPPED: list[dict[str, Any]] = [*FINE, {"name": "c", "skip_reason": "not found"}]


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (FINE, 0, "no known vulnerabilities in 1 distributions (pypi)\n"),
        (
            WRONG,
            1,
            "b 2: CVE-2026-1, mended in 2.1\n1 known vulnerabilities in 2 distributions (pypi)\n",
        ),
        (
            SKIPPED,
            1,
            "not looked up: c\nno known vulnerabilities in 1 distributions (pypi)\n",
        ),
    ],
)
def test_what_a_database_says(
    found: list[dict[str, Any]], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit_lock.audit(lambda _: found) == code
    assert capsys.readouterr().out == said


def test_the_second_database_is_asked_where_the_first_cannot_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit_lock.audit(lambda name: "cut off" if name == "pypi" else FINE) == 0
    assert "(osv)" in capsys.readouterr().out


def test_no_database_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_lock.audit(lambda _: "cut off") == 3
    assert capsys.readouterr().err == (
        "audit: no database could be asked: pypi: cut off; osv: cut off\n"
    )


def test_a_database_that_has_nothing_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of such an index pip-audit says that nothing is wrong, and exits with 0."""
    document = '{"dependencies": [{"name": "a", "skip_reason": "a is not on PyPI"}]}'

    class Done:
        stdout, stderr, returncode = document, "", 0

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Done)
    assert audit_lock.ask("pypi") == "it has none of them (a is not on PyPI)"
