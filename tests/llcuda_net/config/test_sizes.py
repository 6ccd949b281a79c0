"""Sizes as people write them."""

from __future__ import annotations

import pytest

from llcuda_net.config.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("512M", 512_000_000), (" 1.5 GiB ", 3 << 29), ("2kb", 2000), ("0", 0)],
)
def test_a_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1 mile", "-1", "1e9", "999999999T"])
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a size|is too large"):
        parse_size(text)
