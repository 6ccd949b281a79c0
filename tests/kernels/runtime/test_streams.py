"""Named streams with a stand-in for the driver."""

from __future__ import annotations

import pytest

import llcuda_kernels as k


class Stream:
    def __init__(self, log: list[str]) -> None:
        self.log, self.name = log, f"s{len(log)}"
        log.append(f"{self.name} made")

    def sync(self) -> None:
        self.log.append(f"{self.name} sync")

    def close(self) -> None:
        self.log.append(f"{self.name} closed")

    def record(self) -> str:
        return f"event of {self.name}"

    def wait(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


def test_streams_are_made_once_and_closed_together() -> None:
    log: list[str] = []
    with k.StreamManager(make=lambda: Stream(log)) as streams:
        assert streams.stream("copy") is streams.stream("copy")
        streams.wait("compute", streams.record("copy"))
        assert streams.names() == ["compute", "copy"]
        streams.synchronize("copy")
    assert log == [
        "s0 made", "s1 made", "s1 waits for event of s0", "s0 sync",
        "s0 sync", "s0 closed", "s1 sync", "s1 closed",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="closed"):
        streams.stream("copy")
    streams.close()
    assert len(log) == 8
