"""What a terminal would obey is made visible, and nothing else is changed."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.util.terminal import (
    STYLES,
    StdoutFile,
    echo,
    echo_data,
    harmless,
    is_clever,
    one_line,
    paint,
    status_line,
)
from tests.support.cli.fake_terminal import EVIL, FakeTerminal, is_obeyed

#: Text of the world with what a careless filter would take away.
WORLD = [
    "日本語 ｶﾅ 東京",
    "👩\u200d👩\u200d👧\u200d👦 🏴\U000e0067\U000e0062\U000e007f 👍🏽 ❤\ufe0f",
    "e\u0301 n\u0303 क्ष\u200dा",
    "שלום \u200fعليكم\u200e \u061c",
    "a\tb\nc  \u00a0 \u3000 \ufeff \u200b \u00ad",
    "\U0001f600 \U00020000 \ue000",
]


@pytest.mark.parametrize("text", WORLD)
def test_ordinary_text_stays(text: str) -> None:
    assert harmless(text) == text
    assert one_line(text) == text.replace("\t", " ").replace("\n", " ")


def test_control_characters_are_visible() -> None:
    assert harmless("a\x1b]0;x\x07\x9b2J\x7f\u202e\ud800") == (
        "a\\x1b]0;x\\x07\\u009b2J\\u007f\\u202e\\ud800"
    )
    assert harmless("a\r\nb\rc\n\td") == "a\nb\\x0dc\n\td"
    assert one_line("a\r\nb\u2028c\x85d\x1b") == "a  b c d\\x1b"


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for found in (harmless(text), one_line(text)):
        assert not any(map(is_obeyed, found))
        found.encode()  # no half characters either
    assert not set(one_line(text)) & set("\n\t")
    kept = {c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert kept <= set(harmless(text))


@given(st.lists(st.text(st.characters(exclude_categories=()))))
def test_it_does_not_matter_how_a_text_is_cut(pieces: list[str]) -> None:
    """An escape sequence that comes in two pieces is as visible as one that comes whole."""
    whole = "".join(pieces).replace("\r\n", "\r")
    assert "".join(map(harmless, whole)) == harmless(whole)


@given(st.text(st.characters(exclude_categories=())))
def test_json_says_what_it_said(text: str) -> None:
    for ascii_ in (True, False):
        assert json.loads(harmless(json.dumps(text, ensure_ascii=ascii_))) == text


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_only_our_own_colours_pass_and_only_where_they_are_asked_for(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = FakeTerminal()
    painted = paint("x", "31", terminal)
    assert painted == ("\x1b[31mx\x1b[0m" if term == "xterm" else "x")
    echo(f"{painted}{EVIL}\x1b[5m", file=terminal, styled=True)
    assert terminal.text == f"{painted}{harmless(EVIL)}\\x1b[5m\n"
    terminal = FakeTerminal()
    echo(f"\x1b[31m{EVIL}", file=terminal)
    assert terminal.text == f"\\x1b[31m{harmless(EVIL)}\n"
    piped = io.StringIO()
    echo("\x1b[31mx", file=piped, styled=True)
    assert piped.getvalue() == "\\x1b[31mx\n"
    assert "31" in STYLES


def test_a_status_line_is_one_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = FakeTerminal()
    status_line(f"a\nb{EVIL}", terminal)
    assert terminal.text == f"\r\x1b[Ka b{one_line(EVIL)}"


def test_data_is_exact_for_programs_and_harmless_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for exact in (False, True):
        piped = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n")
        monkeypatch.setattr("sys.stdout", piped)
        echo_data(EVIL, exact=exact)
        StdoutFile().write(EVIL.encode())
        piped.flush()
        assert piped.buffer.getvalue().decode() == EVIL * 2
        terminal = FakeTerminal()
        monkeypatch.setattr("sys.stdout", terminal)
        echo_data(EVIL, exact=exact)
        StdoutFile().write(EVIL.encode())
        assert terminal.text == harmless(EVIL) * 2


def test_a_rank_under_mpirun_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stdout is a terminal that Open MPI made, whatever mpirun writes to."""
    screen = FakeTerminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("OMPI_COMM_WORLD_RANK", raising=False)
    assert paint("note:", "33", screen) == "\x1b[33mnote:\x1b[0m"
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert paint("note:", "33", screen) == "note:"
    assert not is_clever(screen)
