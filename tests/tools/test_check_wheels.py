"""Every core dependency has wheels for aarch64, too: a Raspberry Pi needs no compiler."""

from __future__ import annotations

import pytest

from tools import check_wheels


def test_what_is_wanted_depends_on_the_python_that_is_asked_for() -> None:
    old, new = (check_wheels.wanted(python, "aarch64", []) for python in ("3.13", "3.14"))
    assert {one for one in old if one not in new} == {"backports.zstd<2,>=1.0"}
    assert not [one for one in old if ";" in one]
    with_extra = check_wheels.wanted("3.12", "x86_64", ["cluster"])
    assert any(one.startswith("psycopg") for one in with_extra)


@pytest.mark.slow
def test_the_core_has_wheels_for_aarch64() -> None:
    """Of the oldest Python; `make check-wheels` asks for each, and for x86-64."""
    try:
        check_wheels.need_index()
    except check_wheels.NoIndexError as error:
        pytest.skip(str(error))
    assert not list(check_wheels.missing("3.11", "aarch64", []))


def test_what_has_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_wheels, "wanted", lambda *_: ["h11>=0.16", "hdrhistogram>=0.10"])

    def resolve(requirements: list[str], *_: str) -> str:
        return "No matching distribution" if "hdrhistogram>=0.10" in requirements else ""

    monkeypatch.setattr(check_wheels, "resolve", resolve)
    assert list(check_wheels.missing("3.11", "aarch64", [])) == [
        "hdrhistogram>=0.10: No matching distribution"
    ]


def test_without_an_index_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_wheels, "resolve", lambda *_: "No matching distribution for h11")
    monkeypatch.setattr("sys.argv", ["check_wheels.py"])
    assert check_wheels.main() == 3
    assert capsys.readouterr().err == (
        "check_wheels: no package index can be asked for wheels: No matching distribution for h11\n"
    )
