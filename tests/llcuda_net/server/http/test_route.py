"""Which route a path finds, and with which parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.route import Route, Routes


async def nothing(exchange: Exchange) -> None:
    """Is never called."""


PATTERNS = ("/", "/a", "/a/{id}", "/a/{id}/b", "/a/c", "/files/{rest*}", "/files/known")
ROUTES = Routes(Route("GET", pattern, nothing) for pattern in PATTERNS)


def found(path: str) -> tuple[str, dict[str, str]] | None:
    there = ROUTES.find(path)
    return None if there is None else (there[0]["GET"].pattern, there[1])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ("/", {})),
        ("/a", ("/a", {})),
        ("/%61", ("/a", {})),
        ("/a/1", ("/a/{id}", {"id": "1"})),
        ("/a/%2f%20", ("/a/{id}", {"id": "/ "})),
        ("/a/c", ("/a/c", {})),
        ("/a/c/b", ("/a/{id}/b", {"id": "c"})),
        ("/a/", None),
        ("/a/1/", None),
        ("/a//b", None),
        ("//", None),
        ("", None),
        ("*", None),
        ("/files", None),
        ("/files/", None),
        ("/files/known", ("/files/known", {})),
        ("/files/x", ("/files/{rest*}", {"rest": "x"})),
        ("/files/x/y/z.js", ("/files/{rest*}", {"rest": "x/y/z.js"})),
        ("/files/x/", ("/files/{rest*}", {"rest": "x/"})),
        ("/files/%2e%2e/x", ("/files/{rest*}", {"rest": "%2e%2e/x"})),  # as it came
    ],
)
def test_paths(path: str, expected: tuple[str, dict[str, str]] | None) -> None:
    assert found(path) == expected


@given(st.lists(st.sampled_from(["a", "b", "c", "", "files", "known", "%41", ".."])))
def test_what_is_found_fits_its_pattern(segments: list[str]) -> None:
    path = f"/{'/'.join(segments)}"
    there = found(path)
    if there is not None:
        pattern, parameters = there
        for name, value in parameters.items():
            assert value
            pattern = pattern.replace(f"{{{name}*}}", value).replace(f"{{{name}}}", value)
        assert pattern in (path, path.replace("%41", "A"))
