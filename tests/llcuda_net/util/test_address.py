"""HOST:PORT: what is read, how it is printed back, and what each mistake is told."""

from __future__ import annotations

import pytest

from llcuda_net.errors import ConfigError
from llcuda_net.util.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "printed"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("localhost", ("localhost", 9000), "localhost:9000"),
        ("[::1]:9001", ("::1", 9001), "[::1]:9001"),
        ("[fe80::1%eth0]", ("fe80::1%eth0", 9000), "[fe80::1%eth0]:9000"),
        (" gpu-box:1 ", ("gpu-box", 1), "gpu-box:1"),
        ("h:65535", ("h", 65535), "h:65535"),
    ],
)
def test_reads_and_prints(text: str, address: tuple[str, int], printed: str) -> None:
    found = parse_address(text)
    assert found == address
    assert str(found) == printed
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("http://h:9000", "URL"),
        ("h:9000/path", "URL or a path"),
        ("::1", "needs brackets"),
        ("::1:9000", "needs brackets"),
        ("[::1", "not an address"),
        ("[::1]9000", "not an address"),
        ("[localhost]:9000", "not an address"),
        (":9000", "no host"),
        ("a b:9000", "no host"),
        ("h\x00:9000", "no host"),
        ("h:", "no port"),
        ("h:0", "no port from 1"),
        ("h:65536", "no port"),
        ("h:-1", "no port"),
        ("h:+1", "no port"),
        ("h:1_0", "no port"),
        ("h:٣", "no port"),
        ("h:http", "no port"),
        ("h:" + "9" * 5000, "no port"),
    ],
)
def test_refuses_in_one_line_that_says_how_to_write_it(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_address(text)
    assert "write HOST:PORT" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_port_zero_is_for_listening() -> None:
    assert parse_address("h:0", lowest_port=0) == Address("h", 0)
