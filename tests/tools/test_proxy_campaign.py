"""The proxy campaign: disturbed connections change no answer, where clients reconnect."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from tools import proxy_campaign
from tools.crash import disturbed
from tools.crash.proxy import TROUBLES, Manners, Proxy

SCRIPT = [sys.executable, proxy_campaign.__file__]


def test_a_few_seconds_of_it(tmp_path: Path) -> None:
    file = tmp_path / "proxy.json"
    options = ("--minutes", "0.08", "--peace", "0.7", "--rate", "100", "--seed", "3")
    ended = subprocess.run(
        [*SCRIPT, *options, "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(file.read_text())
    assert (found["violations"], found["clients"]) == ([], 32)
    assert found["troubles"]["connections"] > 64
    assert all(found["troubles"][name] for name in (*TROUBLES, "refused"))
    counts = found["counts"]
    assert counts["stored"] == counts["unaltered at the end"] == counts["found in the store"] > 32
    assert counts["splices"] == 0


async def test_it_notices_clients_that_do_not_reconnect(tmp_path: Path) -> None:
    plan = disturbed.Plan(1, 20, clients=8, reconnect=0, manners=Manners(peace=0.2, stall=0.2))
    outcome = await disturbed.run(plan, tmp_path, lambda text: None)
    assert outcome.violations


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--clients", "0"], ["--peace", "x"]])
def test_a_wrong_option_is_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        proxy_campaign.main(wrong)
    assert ended.value.code == 2
    with pytest.raises(SystemExit):
        proxy_campaign.main(["--help"])
    assert "example:" in capsys.readouterr().out


async def test_in_peace_everything_goes_through_as_it_is() -> None:
    rng = random.Random(1)
    sent = rng.randbytes(1 << 20)

    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            while data := await stream.receive_some():
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        # A seed of which the first connection is not refused.
        proxy = Proxy(port, random.Random(1), Manners(peace=1e9))
        await nursery.start(proxy.run)
        came = bytearray()
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            nursery.start_soon(stream.send_all, sent)
            while len(came) < len(sent):
                data = await stream.receive_some()
                assert data, "closed before its time"
                came += data
        nursery.cancel_scope.cancel()
    assert bytes(came) == sent
    assert proxy.counts["connections"] == 1
    assert proxy.counts["bytes"] >= 2 * len(sent) - 4096
