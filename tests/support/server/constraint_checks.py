"""Checks of constraints in the test's own process: another one knows nothing of virtual time."""

from __future__ import annotations

from collections.abc import Callable

import trio

from llcuda_net.upstream.constraints.checks import Answer, Checks


def checks_here() -> Checks:
    """Checks that ask here and now."""

    async def run(question: Callable[..., Answer], *arguments: object) -> Answer:
        await trio.lowlevel.checkpoint()
        return question(*arguments)

    return Checks(run)
