"""One port for several processes, which nobody else has."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
import trio

from llcuda_net.errors import ListenError
from llcuda_net.server.processes.ports import hold
from llcuda_net.server.sockets import address_of, open_listeners


def close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


async def test_those_that_share_a_held_port_may_listen_and_others_may_not() -> None:
    held, port = hold("127.0.0.1", 0)
    try:
        first = await open_listeners("127.0.0.1", port, shared=True)
        second = await open_listeners("127.0.0.1", port, shared=True)
        assert {address_of(one) for one in (*first, *second)} == {f"127.0.0.1:{port}"}
        with pytest.raises(ListenError, match="choose another --port"):
            await open_listeners("127.0.0.1", port)
        with pytest.raises(ListenError, match="choose another --port"):
            hold("127.0.0.1", port)  # of other processes, which would share it by mistake
        await first[0].aclose()
        # What is held takes no connection: each comes to the one that is left.
        for _ in range(8):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            served = await second[0].accept()
            await served.aclose()  # first, so that this side waits with the port for a while
            await client.aclose()
        await second[0].aclose()
    finally:
        close(held)
    again, _ = hold("127.0.0.1", port)
    close(again)


def test_a_name_with_several_addresses_has_one_port_on_all() -> None:
    held, port = hold("localhost", 0)
    assert {one.getsockname()[1] for one in held} == {port}
    close(held)


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid", "x" * 300])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        hold(host, 0)
