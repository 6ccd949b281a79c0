"""Where the installed commands begin: so little that Ctrl-C finds nothing else to interrupt."""

from __future__ import annotations


def client() -> int:
    """Run llcuda-client; returns its exit code."""
    try:
        from llcuda_net.cli.client.command import main

        return main()
    except KeyboardInterrupt:
        return 130


def server() -> int:
    """Run llcuda-server; returns its exit code."""
    try:
        from llcuda_net.cli.server import main

        return main()
    except KeyboardInterrupt:
        return 130


def mpi() -> int:
    """Run one rank of llcuda-mpi; returns its exit code."""
    try:
        from llcuda_net.cli.batch.mpi import main

        return main()
    except KeyboardInterrupt:
        return 130


def tools() -> int:
    """Run llcuda; returns its exit code."""
    try:
        from llcuda_net.cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130
