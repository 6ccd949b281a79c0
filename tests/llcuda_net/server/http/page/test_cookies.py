"""The cookie of a session: its name by port and TLS, and how it is read among others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.page.cookies import LIFE, ids, name_of, names_of, setting
from llcuda_net.server.http.request import Headers

ONE, TWO = "a" * 43, "B-_9" + "c" * 39
NAME = "llcuda_9000"


def found(*lines: str, name: str = NAME) -> list[str]:
    return list(ids(Headers((b"cookie", line.encode("latin-1")) for line in lines), name))


@pytest.mark.parametrize(
    ("authority", "secure", "name"),
    [
        ("localhost:9000", False, "llcuda_9000"),
        ("[::1]:9000", False, "llcuda_9000"),
        ("[::1]", False, "llcuda_80"),
        ("chat.example", False, "llcuda_80"),
        ("chat.example", True, "__Host-llcuda_443"),
        ("chat.example:8443", True, "__Host-llcuda_8443"),
        ("localhost:", False, "llcuda_80"),
        ("localhost:123456", False, "llcuda_80"),
        ("localhost:9000; Domain=example", False, "llcuda_80"),
        ("localhost:09000", False, "llcuda_9000"),
        ("localhost:\u0669\u0660", False, "llcuda_80"),
        ("", False, "llcuda_80"),
    ],
)
def test_its_name_has_the_port(authority: str, secure: bool, name: str) -> None:
    assert name_of(authority, secure=secure) == name


def test_over_tls_only_one_that_needs_tls_counts() -> None:
    assert names_of("x:1", tls=True) == ["__Host-llcuda_1"]
    assert names_of("x:1", tls=False) == ["__Host-llcuda_1", "llcuda_1"]


@pytest.mark.parametrize(
    ("lines", "there"),
    [
        ([f"{NAME}={ONE}"], [ONE]),
        ([f"a=b; {NAME}={ONE}; c=d"], [ONE]),
        ([f"a=b;{NAME}={ONE};"], [ONE]),
        ([f" {NAME} = {ONE} "], [ONE]),
        ([f"{NAME}={ONE}; {NAME}={TWO}"], [ONE, TWO]),
        (["a=b", f"{NAME}={ONE}", f"{NAME}={TWO}"], [ONE, TWO]),
        ([f"{NAME}=x; {NAME}={ONE}"], [ONE]),
        ([f'{NAME}="{ONE}"'], []),
        ([f"{NAME}={ONE}x"], []),
        ([f"{NAME}={ONE}\xe9"], []),
        ([f"{NAME}={ONE[:-1]}\xb2"], []),
        ([f"{NAME.upper()}={ONE}"], []),
        ([f"__Host-{NAME}={ONE}"], []),
        ([f"x{NAME}={ONE}"], []),
        ([f"llcuda_9001={ONE}"], []),
        ([f"a={NAME}={ONE}"], []),
        ([NAME, f"{NAME}", "=", ";;;", ""], []),
    ],
)
def test_it_is_found_among_others(lines: list[str], there: list[str]) -> None:
    assert found(*lines) == there


def test_not_more_are_looked_at_than_a_browser_could_mean() -> None:
    assert len(found("; ".join([f"{NAME}={ONE}"] * 700))) == 16


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=200), max_size=4))
def test_whatever_is_in_a_cookie_is_read(lines: list[str]) -> None:
    assert all(len(one) == 43 and one.isascii() for one in found(*lines))


@pytest.mark.parametrize(("name", "secure"), [(NAME, False), ("__Host-llcuda_443", True)])
def test_no_script_and_no_other_site_gets_it(name: str, secure: bool) -> None:
    first, *rest = setting(name, ONE)["Set-Cookie"].split("; ")
    assert first == f"{name}={ONE}"
    expected = {"Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={LIFE}"}
    assert {*rest} == expected | ({"Secure"} if secure else set())
    cleared = setting(name, None)["Set-Cookie"].split("; ")
    assert cleared[0] == f"{name}="
    assert "Max-Age=0" in cleared
