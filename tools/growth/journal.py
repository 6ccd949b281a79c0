"""A journal as a killed server leaves it, of any size, and what a start with it takes."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.journal import SEGMENT_BYTES
from llcuda_net.storage.journal.marks import NAME, mark
from llcuda_net.storage.journal.recovery import segment_path
from llcuda_net.storage.records import (
    Appended,
    Dispatched,
    Ended,
    Forgotten,
    Opened,
    Stored,
    encode,
)
from llcuda_net.util.terminal import echo
from llcuda_protocol import Connection, Hello, Role

#: A step in so many has records of several tokens; a sync comes after so many steps.
_GATHERED, _SYNC = 20, 4
_PIECES = [" the", " of", "ing", " a", "\n", ".", " model", " slots", " considered", ",", " is"]
_IDS: range = range(128_000)


@dataclass
class Filled:
    """A journal that was written.

    Attributes:
        tokens: in records of token logs.
        bytes: of all files.
    """

    tokens: int
    records: int
    bytes: int


def fill_journal(
    folder: Path,
    tokens: int,
    *,
    generations: int = 64,
    forgotten: float = 0.0,
    seed: int = 1,
    segment_bytes: int = SEGMENT_BYTES,
) -> Filled:
    """Write a journal with as many tokens, of generations that run side by side.

    Each step has one record per generation: of one token, or, in one step of twenty, of up to four.

    Args:
        folder: the journal's; made if need be.
        forgotten: the share of tokens of generations that have ended and are in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, segment_bytes)
    rng = random.Random(seed)
    over = tokens * forgotten
    if forgotten:
        _run(writer, rng, 1, generations, int(over))
        for slot in range(1, generations + 1):
            count = writer.counts[slot]
            writer.add(encode(Ended(slot=slot, count=count, state="done")))
            writer.add(encode(Forgotten(slot, _id(slot), slot)))
    _run(writer, rng, generations + 1, generations, tokens)
    writer.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Filled(writer.tokens, writer.records, size)


def _id(slot: int) -> str:
    return f"0190a1b2-0000-7000-8000-{slot:012d}"


def _run(writer: _Writer, rng: random.Random, first: int, generations: int, until: int) -> None:
    slots = range(first, first + generations)
    for slot in slots:
        messages = [{"role": "user", "content": f"Tell me of number {slot}. " * 20}]
        opened = Opened(
            slot=slot,
            generation=_id(slot),
            request={"messages": messages, "params": {"seed": slot}, "timeout": 600.0},
            created=1_700_000_000_000_000_000 + slot,
        )
        writer.add(encode(opened))
        model = {"name": "model", "hash": "0" * 64, "build_info": "b1"}
        writer.add(encode(Dispatched(slot=slot, upstream="http://gpu:8080", model=model)))
    step = 0
    while writer.tokens < until:
        step += 1
        many = step % _GATHERED == 0
        pieces = iter(rng.choices(_PIECES, k=(4 if many else 1) * generations))
        ids = iter(rng.choices(_IDS, k=(4 if many else 1) * generations))
        for slot in slots:
            count = rng.randrange(1, 5) if many else 1
            have = writer.counts.get(slot, 0)
            record = Appended(slot, have, [*islice(pieces, count)], [*islice(ids, count)])
            writer.add(encode(record))
            writer.counts[slot] = have + count
            writer.tokens += count
        writer.flush(sync=step % _SYNC == 0)


class _Writer:
    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.tokens = self.records = 0
        self.counts: dict[int, int] = {}
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._number = 0
        self._ends: dict[int, int] = {}
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._number += 1
        header = framing.Header(self._number, max(self.counts, default=0) + 1)
        self._file = segment_path(self._folder, self._number).open("xb")
        self._seed = header.seed
        self._file.write(header.encode())
        self._size = framing.HEADER_SIZE
        self.add(encode(Stored()))

    def add(self, body: bytes) -> None:
        self._buffer += framing.frame(body, self._seed)
        self._buffer += body
        self._seed += 1
        self.records += 1

    def flush(self, *, sync: bool) -> None:
        self._file.write(self._buffer)
        self._size += len(self._buffer)
        self._ends[self._number] = self._size
        self._buffer = bytearray()
        if self._size >= self._segment_bytes:
            self._file.close()
            self._begin()
        if sync:
            self.add(encode(mark(self._ends)))

    def close(self) -> None:
        self.flush(sync=False)
        self._file.close()
        body = encode(mark(self._ends))
        (self._folder / NAME).write_bytes(framing.frame(body, 0) + body)


@dataclass
class Start:
    """A start of a server.

    Attributes:
        welcome, ready: seconds until a client was greeted, and until requests are served.
        peak: bytes of memory that the process took at most.
    """

    welcome: float
    ready: float
    peak: int


def measure_start(server: str, data_dir: Path) -> Start:
    """Start a server with a data directory and an upstream that does not answer, and kill it.

    Args:
        server: the path of llcuda-server.
    """
    port = _free_port()
    options = ["--upstream", "http://127.0.0.1:9", "--data-dir", str(data_dir), "--no-analysis"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [server, "--port", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        welcome: list[float] = []
        thread = threading.Thread(target=lambda: welcome.append(_greeted(port)), daemon=True)
        thread.start()
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the server did not start")
        ready = time.perf_counter() - began
        thread.join()
        return Start(welcome[0] - began, ready, _peak(process.pid))
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _greeted(port: int) -> float:
    """When a server first greeted a client."""
    hello = Connection(Role.CLIENT).send(Hello([1], 1 << 20, 16, None))
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(hello)
            if client.recv(4096):
                return time.perf_counter()
        time.sleep(0.01)


def _peak(pid: int) -> int:
    with Path(f"/proc/{pid}/status").open(encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def main() -> None:
    """`DATA_DIR TOKENS [GENERATIONS]` fills one; `DATA_DIR [LLCUDA_SERVER]` starts with it."""
    data_dir, *rest = sys.argv[1:]
    if rest and rest[0].isdigit():
        filled = fill_journal(Path(data_dir) / "journal", int(rest[0]), generations=_many(rest))
        echo(repr(filled))
        return
    server = rest[0] if rest else str(Path(sys.executable).with_name("llcuda-server"))
    echo(repr(measure_start(server, Path(data_dir))))


def _many(rest: list[str]) -> int:
    return int(rest[1]) if len(rest) > 1 else 64


if __name__ == "__main__":
    main()
