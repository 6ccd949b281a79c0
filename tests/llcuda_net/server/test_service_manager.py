"""What a service manager is told, by a socket that listens as systemd's does."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError
from llcuda_net.server.service_manager import ServiceManager
from llcuda_net.server.sockets import PassedSockets, address_of, listeners_of


@pytest.fixture
def told() -> Iterator[Callable[..., ServiceManager]]:
    """Makes a manager, and closes it."""
    with ExitStack() as stack:
        yield lambda *given, **more: stack.enter_context(ServiceManager(*given, **more))


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest) -> Iterator[tuple[str, socket.socket]]:
    """The value of NOTIFY_SOCKET, and what hears it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        address = f"{folder}/notify"
        if request.param == "abstract":
            address = f"@llcuda-{os.getpid()}-{Path(folder).name}"
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        listening.setblocking(False)
        yield address, listening


def said(listening: socket.socket) -> list[str]:
    """All that was told since the last look, a line each."""
    out: list[str] = []
    while True:
        try:
            out += listening.recv(4096).decode().split("\n")
        except BlockingIOError:
            return out


def test_a_life_is_told(
    heard: tuple[str, socket.socket], told: Callable[..., ServiceManager]
) -> None:
    address, listening = heard
    manager = told(address, clock=lambda: 12.5)
    manager.look("the server is starting")
    assert said(listening) == ["STATUS=the server is starting", "EXTEND_TIMEOUT_USEC=60000000"]
    manager.look("the server is starting")  # the same: only that it takes longer
    assert said(listening) == ["EXTEND_TIMEOUT_USEC=60000000"]
    manager.ready()
    manager.look("serving")
    manager.look("serving")
    assert said(listening) == ["READY=1", "STATUS=serving"]
    manager.reloading()
    manager.reloaded()
    assert said(listening) == ["RELOADING=1", "MONOTONIC_USEC=12500000", "READY=1"]
    manager.stopping(45)
    manager.stopping(45)
    manager.ready()  # a reload that ends meanwhile takes nothing back
    manager.reloading()
    assert said(listening) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000"]


def test_a_start_is_not_over_because_settings_are_read_again(
    heard: tuple[str, socket.socket],
    told: Callable[..., ServiceManager],
) -> None:
    address, listening = heard
    manager = told(address)
    manager.reloading()
    manager.reloaded()
    assert said(listening) == []


def test_a_status_cannot_say_anything_else(
    heard: tuple[str, socket.socket], told: Callable[..., ServiceManager]
) -> None:
    address, listening = heard
    manager = told(address)
    manager.ready()
    manager.look("upstream: bad gateway\nMAINPID=1\x1b[2J" + "x" * 1000)
    lines = [line for line in said(listening) if line != "READY=1"]
    assert len(lines) == 1
    assert lines[0].startswith(r"STATUS=upstream: bad gateway MAINPID=1\x1b[2Jxxx")
    assert len(lines[0]) < 300


async def test_the_watchdog_is_answered_thrice_in_its_time(
    heard: tuple[str, socket.socket],
    told: Callable[..., ServiceManager],
    autojump_clock: trio.testing.MockClock,
) -> None:
    address, listening = heard
    manager = told(address, watchdog=9.0)
    manager.ready()
    with trio.move_on_after(8.9):
        await manager.keep_informed(lambda: "serving")
    assert said(listening).count("WATCHDOG=1") == 3  # at 0, 3 and 6 s


async def test_without_a_watchdog_only_changes_are_told(
    heard: tuple[str, socket.socket],
    told: Callable[..., ServiceManager],
    autojump_clock: trio.testing.MockClock,
) -> None:
    address, listening = heard
    manager = told(address)
    manager.ready()
    texts = iter(["a", "a", "b", "b"])
    with trio.move_on_after(19):
        await manager.keep_informed(lambda: next(texts))
    assert said(listening) == ["READY=1", "STATUS=a", "STATUS=b"]


async def test_where_nobody_listens_nothing_is_done() -> None:
    manager = ServiceManager()
    manager.ready()
    manager.stopping(1)
    await manager.keep_informed(lambda: pytest.fail("nobody asked"))
    assert repr(manager) == "<ServiceManager: nobody is told>"


def test_a_socket_that_is_gone_ends_nothing(
    tmp_path: Path, told: Callable[..., ServiceManager]
) -> None:
    ServiceManager(str(tmp_path / "none")).ready()
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        manager = told(address)
    manager.ready()
    manager.look("serving")


def test_the_variables_are_taken_and_only_if_they_are_ours(
    heard: tuple[str, socket.socket],
) -> None:
    address, listening = heard
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "PATH": "/bin"}
    with ServiceManager.take(environment) as manager:
        manager.ready()
        manager.look("")
    assert said(listening) == ["READY=1", "WATCHDOG=1"]
    assert environment == {"PATH": "/bin"}
    others = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    with ServiceManager.take(others) as manager:
        manager.ready()
        manager.look("")
    assert said(listening) == ["READY=1"]  # the watchdog is another process's
    assert others == {}


def variables(count: int, names: str = "") -> dict[str, str]:
    """What systemd sets for this process."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}


def passed_from(sockets: list[socket.socket], names: str = "") -> PassedSockets:
    """What is taken where these are the descriptors from some number on."""
    first = max(int(path.name) for path in Path("/dev/fd").iterdir()) + 10
    made = [os.dup2(one.fileno(), first + place) for place, one in enumerate(sockets)]
    environment = variables(len(made), names)
    try:
        found = PassedSockets.take(environment, first)
    except ConfigError:
        for descriptor in made:
            os.close(descriptor)
        raise
    assert environment == {}
    return found


def test_sockets_that_listen_are_taken_by_their_names() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        found = passed_from([one, two, three], "llcuda.socket:metrics:llcuda.socket")
        try:
            assert [x.getsockname() for x in found.serving] == [
                one.getsockname(),
                three.getsockname(),
            ]
            assert [x.getsockname() for x in found.monitoring] == [two.getsockname()]
            assert not any(os.get_inheritable(x.fileno()) for x in found.serving)
            settings = found.settings(Settings(host="0.0.0.0", port=1))
            assert (settings.host, settings.port) == one.getsockname()
            assert settings.metrics_port == two.getsockname()[1]
        finally:
            for sock in (*found.serving, *found.monitoring):
                sock.close()


async def test_they_accept_clients() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        found = passed_from([one])
        (listener,) = listeners_of(found.serving)
        host, port = one.getsockname()
        assert address_of(listener) == f"{host}:{port}"
        async with listener, await trio.open_tcp_stream(host, port) as stream:
            async with await listener.accept() as accepted:
                await accepted.send_all(b"x")
            assert await stream.receive_some(1) == b"x"


def test_who_may_come_in_is_judged_by_the_widest_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as near,
        socket.create_server(("0.0.0.0", 0)) as far,
    ):
        found = passed_from([near, far])
        try:
            assert found.settings(Settings()).host == "0.0.0.0"
        finally:
            for sock in found.serving:
                sock.close()


@pytest.mark.parametrize("kind", ["file", "datagrams", "accepted", "unix"])
def test_what_is_no_listening_tcp_socket_is_refused(kind: str) -> None:
    made: list[socket.socket] = []
    if kind == "datagrams":
        made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    elif kind == "accepted":
        made = list(socket.socketpair())
    elif kind == "unix":
        made = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
    try:
        if kind == "file":
            wrong = pytest.raises(ConfigError, match=r"descriptor \d+ .*is no socket")
            with tempfile.TemporaryFile() as file, wrong:
                PassedSockets.take(variables(1), file.fileno())
        else:
            with pytest.raises(ConfigError, match=r"\(web\).* ListenStream=ADDRESS:PORT"):
                passed_from(made[:1], "web")
    finally:
        for one in made:
            one.close()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},  # of a process above
        {"LISTEN_FDS": "", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_what_is_not_for_us_is_not_taken(environment: dict[str, str]) -> None:
    assert PassedSockets.take(environment) == PassedSockets()
    assert environment == {}
