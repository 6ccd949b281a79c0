"""Ranks that exchange messages: MPI without blocking in it, or one rank alone.

A rank that waits inside an MPI call polls, and eats the core that another rank, or the model, would
compute on. So every message here is sent and received by calls that return at once, and between
two looks the task sleeps: `POLL` seconds at first, up to `LONGEST_POLL` while nothing comes.

Only `open_communicator` imports mpi4py. Without it, and without mpirun, there is one rank, and
everything below works the same.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from llcuda_net.errors import ConfigError
from llcuda_net.util.terminal import echo

#: Seconds between two looks for messages: while some come, and after a while without.
POLL = 0.001
LONGEST_POLL = 0.005
#: Of our messages; those of `ping_pong` have another.
_TAG = 7
#: Variables by which a process knows that it is one of several ranks, of the usual launchers.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS")


class Communicator:
    """All ranks of this run, seen from one of them.

    Messages are Python objects on named channels; those from one rank on one channel arrive in the
    order in which they were sent.

    Attributes:
        rank, size: this one's number, and how many there are.
        local_rank: its number among those on its host.
        host: this rank's host name.
        library: which MPI it is; empty when alone.
        native: mpi4py's communicator, for buffers; None when alone. Its calls wait, and poll.
    """

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm
        self.native: Any = comm
        self.rank: int = comm.Get_rank() if comm is not None else 0
        self.size: int = comm.Get_size() if comm is not None else 1
        self.local_rank = 0
        self.host = socket.gethostname()
        self.library = ""
        self._sending: list[Any] = []
        self._receiving: list[Any] = []
        self._boxes: dict[str, deque[tuple[int, Any]]] = {}
        self._round = 0

    def __repr__(self) -> str:
        waiting = sum(map(len, self._boxes.values()))
        return f"<Communicator rank {self.rank} of {self.size}, {waiting} messages waiting>"

    # -- messages -------------------------------------------------------------------------------

    def send(self, to: int, channel: str, what: Any) -> None:
        """Send an object that can be pickled; it never waits."""
        if to == self.rank:
            self._boxes.setdefault(channel, deque()).append((to, what))
            return
        self._sending.append(self._comm.isend((channel, what), dest=to))

    def look(self) -> None:
        """Take in what has arrived, and let what is being sent go on."""
        if self._comm is None:
            return
        self._sending = [request for request in self._sending if not request.test()[0]]
        while (message := self._comm.improbe(tag=_TAG)) is not None:
            # Not `recv`: a long message would be waited for.
            self._receiving.append(message.irecv())
        while self._receiving:
            done, found = self._receiving[0].test()
            if not done:
                break  # those behind it wait, too: order is kept
            self._receiving.pop(0)
            origin, channel, what = found
            self._boxes.setdefault(channel, deque()).append((origin, what))

    def take(self, channel: str) -> tuple[int, Any] | None:
        """The next message of a channel, with its sender's rank; None if there is none."""
        box = self._boxes.get(channel)
        return box.popleft() if box else None

    async def receive(self, channel: str) -> tuple[int, Any]:
        """Wait for the next message of a channel."""
        pause = POLL
        while True:
            self.look()
            if (found := self.take(channel)) is not None:
                await trio.lowlevel.checkpoint()
                return found
            await trio.sleep(pause)
            pause = min(LONGEST_POLL, pause * 1.5)

    async def flush(self) -> None:
        """Wait until everything that was sent has left."""
        while self._sending:
            self.look()
            await trio.sleep(POLL)

    # -- all together: every rank must call these in the same order -----------------------------

    async def gather(self, what: Any) -> list[Any] | None:
        """Every rank's object, by rank, on rank 0; None on the others."""
        self._round += 1
        channel = f"gather {self._round}"
        self.send(0, channel, (self.rank, what))
        if self.rank:
            await self.flush()
            return None
        found: dict[int, Any] = {}
        while len(found) < self.size:
            _, (rank, value) = await self.receive(channel)
            found[rank] = value
        return [found[rank] for rank in range(self.size)]

    async def broadcast(self, what: Any = None) -> Any:
        """Rank 0's object, on every rank."""
        self._round += 1
        channel = f"broadcast {self._round}"
        if self.rank == 0:
            for rank in range(1, self.size):
                self.send(rank, channel, what)
            await self.flush()
            return what
        return (await self.receive(channel))[1]

    async def reduce(self, what: Any, merge: Callable[[Any, Any], Any]) -> Any:
        """All ranks' objects merged in pairs, as a tree; on rank 0, None on the others."""
        self._round += 1
        channel = f"reduce {self._round}"
        step = 1
        while step < self.size:
            if self.rank % (2 * step):
                self.send(self.rank - step, f"{channel} {step}", what)
                await self.flush()
                return None
            if self.rank + step < self.size:
                what = merge(what, (await self.receive(f"{channel} {step}"))[1])
            step *= 2
        return what

    async def barrier(self) -> None:
        """Wait until every rank has come here."""
        await self.gather(None)
        await self.broadcast()

    # -- what MPI itself costs: these block, and are not for under load -------------------------

    async def ping_pong(self, size: int, rounds: int) -> list[float]:
        """Seconds of each round trip of `size` bytes between ranks 0 and 1, on rank 0."""
        await self.barrier()
        took: list[float] = []
        if self.size > 1 and self.rank < 2:
            there, back = bytearray(size), bytearray(size)
            for _ in range(rounds):
                begin = time.perf_counter()
                if self.rank == 0:
                    self._comm.Send(there, dest=1, tag=1)
                    self._comm.Recv(back, source=1, tag=1)
                else:
                    self._comm.Recv(back, source=0, tag=1)
                    self._comm.Send(there, dest=0, tag=1)
                took.append(time.perf_counter() - begin)
        await self.barrier()
        return took if self.rank == 0 else []

    async def all_reduce(self, rounds: int) -> list[float]:
        """Seconds of each allreduce of one float64, as this rank saw them."""
        await self.barrier()
        took: list[float] = []
        if self.size > 1:
            one, total = array("d", [1.0]), array("d", [0.0])
            for _ in range(rounds):
                begin = time.perf_counter()
                self._comm.Allreduce(one, total)
                took.append(time.perf_counter() - begin)
        await self.barrier()
        return took

    # -- the end --------------------------------------------------------------------------------

    def abort(self, code: int) -> None:
        """End all ranks now, with this exit code; returns only when alone."""
        sys.stderr.flush()
        if self._comm is not None and self.size > 1:
            self._comm.Abort(code)


class _Tagged:
    """A communicator whose messages carry their sender's rank."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def isend(self, what: tuple[str, Any], dest: int) -> Any:
        return self._comm.isend((self._comm.Get_rank(), *what), dest=dest, tag=_TAG)


def expected_ranks() -> int:
    """How many ranks there are by the launcher's variables; 1 without a launcher."""
    for name in _SIZES:
        value = os.environ.get(name, "")
        # Slurm sets its variable for everything in a job, also for what was not started by srun.
        if value.isdigit() and (name != "SLURM_NTASKS" or "SLURM_STEP_ID" in os.environ):
            return int(value)
    return 1


@contextmanager
def open_communicator() -> Iterator[Communicator]:
    """The communicator of this process, for the length of the block.

    An exception that leaves the block, but for SystemExit, ends all ranks: the others would wait
    for this one for ever.

    Raises:
        ConfigError: there are several ranks, and mpi4py is not there or sees only one.
    """
    expected = expected_ranks()
    try:
        import mpi4py

        mpi4py.rc.thread_level = "funneled"  # only trio's thread calls MPI
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library was found
        if expected > 1:
            raise ConfigError(
                f"{expected} ranks were started, but mpi4py cannot be used ({error}):"
                " pip install 'llcuda-net[mpi]'"
            ) from None
        yield Communicator()
        return
    comm = MPI.COMM_WORLD
    if expected > 1 and comm.Get_size() == 1:
        raise ConfigError(
            f"{expected} ranks were started, but each sees only itself: this mpirun is of another"
            " MPI than the one that mpi4py uses; use the mpirun beside python"
        )
    communicator = Communicator(_Tagged(comm))
    communicator.local_rank = comm.Split_type(MPI.COMM_TYPE_SHARED).Get_rank()
    communicator.library = " ".join(MPI.Get_library_version().replace(",", " ").split()[:3]).strip(
        "\0"
    )
    try:
        yield communicator
    except SystemExit:
        raise
    except Exception:
        if communicator.size > 1:
            echo(traceback.format_exc(), file=sys.stderr, end="")
            communicator.abort(1)
        raise
    except BaseException:  # Ctrl-C, or a signal to end
        communicator.abort(130)
        raise
