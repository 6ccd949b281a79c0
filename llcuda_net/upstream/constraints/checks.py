"""Has constraints and answers checked in a process of its own, bounded in time and memory.

A schema of a few lines can need a billion steps, and what checks it is native code: neither may
stop the server, or end it. The process starts with the first constraint and is started again when
it ended.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

import trio
from anyio import BrokenWorkerProcess, to_process

from llcuda_net.errors import InvalidRequest, UpstreamError
from llcuda_net.upstream.constraints import gbnf, tools
from llcuda_net.upstream.constraints.matcher import Match, Matcher, TooComplexError

#: Seconds of CPU and bytes of address space for one check; and seconds in all, on a busy machine.
MAX_SECONDS, PATIENCE = 10.0, 60.0
MAX_BYTES = 512 << 20

#: The parameters that constrain an answer, and what they are called.
_KINDS = {"grammar": "grammar", "json_schema": "JSON schema"}
_TOO_COMPLEX = "is too complex to be checked: make it simpler"

Answer = str | None
Run = Callable[..., Awaitable[Answer]]


class OtherProcess:
    """Asks questions in a process of its own, which anyio starts and ends.

    Args:
        seconds: of CPU, for one question.
        patience: seconds for it in all.
    """

    def __init__(self, seconds: float = MAX_SECONDS, patience: float = PATIENCE) -> None:
        self._turn = trio.Lock()
        self._seconds = seconds
        self._patience = patience

    def __repr__(self) -> str:
        return f"<OtherProcess {self._turn.statistics().tasks_waiting} questions wait>"

    async def run(self, question: Callable[..., Answer], *arguments: object) -> Answer:
        """Ask a question there.

        Raises:
            TooComplexError: it took too much, or ended the process.
        """
        async with self._turn:
            # RecursionError: too deep to be sent there.
            with contextlib.suppress(BrokenWorkerProcess, RecursionError):
                with trio.CancelScope(shield=True):  # anyio loses a process that it is starting
                    await to_process.run_sync(_confine)
                with trio.move_on_after(self._patience):
                    return await to_process.run_sync(
                        _answer, question, arguments, self._seconds, cancellable=True
                    )
        raise TooComplexError


class Checks:
    """Refuses constraints that cannot be kept, and answers that do not keep theirs.

    Args:
        run: asks a question somewhere; by default in a process of its own.
    """

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or OtherProcess().run

    async def check(self, params: Mapping[str, Any], chat: Mapping[str, Any] | None = None) -> None:
        """Return if the constraint of a request can be kept, or if it has none.

        Args:
            chat: its options, with tools; see Upstream.chat.

        Raises:
            InvalidRequest: it cannot.
        """
        if schemas := tools.check_options(params, chat or {}):
            try:
                why = await self._run(tools_refusal, [tuple(one) for one in schemas])
            except TooComplexError:
                why = f"the parameters of the tools: one {_TOO_COMPLEX}"
            if why is not None:
                raise InvalidRequest(why)
        for name in _KINDS.keys() & params.keys():
            try:
                why = await self._run(refusal, name, params[name])
            except TooComplexError:
                why = _TOO_COMPLEX
            if why is not None:
                raise InvalidRequest(f"{name} {why}")

    async def verify(self, params: Mapping[str, Any], text: str, *, cut: bool) -> None:
        """Return if an answer keeps the constraint of its request, or if that has none.

        Args:
            cut: a limit or a stop string ended the answer: it may be the beginning of one.

        Raises:
            UpstreamError: it does not.
        """
        for name in _KINDS.keys() & params.keys():
            try:
                why = await self._run(breach, name, params[name], text, cut)
            except TooComplexError:
                why = "the two are too complex to be compared"
            if why is not None:
                raise UpstreamError(
                    f"the answer does not keep the {_KINDS[name]}: {why}; ask again, or ask for "
                    "something simpler"
                )

    async def verify_calls(
        self, chat: Mapping[str, Any], calls: Sequence[tuple[str, str]], *, cut: bool
    ) -> None:
        """Return if tools were called as a chat wants it: at all, and with what strict ones take.

        Args:
            chat: the options of the request.
            calls: name and arguments of each finished call.
            cut: a limit or a stop string ended the answer: a call might have come.

        Raises:
            UpstreamError: a tool had to be called and none was, or the arguments for a strict one
                do not keep its schema.
        """
        if not calls and not cut and tools.must_call(chat):
            raise UpstreamError(
                "the answer calls no tool, though tool_choice wants one to be called; ask again"
            )
        schemas = tools.strict_schemas(chat)
        for name, arguments in calls:
            if name not in schemas:
                continue
            try:
                why = await self._run(breach, "json_schema", schemas[name], arguments, False)
            except TooComplexError:
                why = "the two are too complex to be compared"
            if why is not None:
                raise UpstreamError(
                    f"the call of the tool {name!r:.80} does not keep its schema: {why}; ask again"
                )


def as_sent(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as upstreams get it: llguidance shall leave out what it does not know.

    An empty one stays empty, by which llama.cpp means any object.
    """
    given = schema.get("x-guidance")
    options = given if isinstance(given, dict) else {}
    return {**schema, "x-guidance": {**options, "lenient": True}} if schema else schema


# -- what runs in the other process, the only one that loads the native code ---------------------


def refusal(kind: str, constraint: Any) -> str | None:
    """Why a constraint is refused; None where it is not."""
    try:
        if kind == "grammar":
            gbnf.parse(constraint)
            return None
        from llcuda_net.upstream.constraints import json_schema

        if kind == "tool":
            json_schema.check_readable(constraint)
        else:
            json_schema.check(as_sent(constraint))
    except ValueError as error:  # of a grammar or a schema
        return str(error)
    except (MemoryError, RecursionError):
        return _TOO_COMPLEX
    return None


def tools_refusal(schemas: list[tuple[str, dict[str, Any], bool]]) -> str | None:
    """Why one of a chat's tools is refused; None where none is.

    Args:
        schemas: see tools.Schema.
    """
    for name, schema, strict in schemas:
        why = refusal("json_schema" if strict else "tool", schema)
        if why is not None:
            return f"the parameters of the tool {name!r:.80} {why}"
    return None


def breach(kind: str, constraint: Any, text: str, cut: bool) -> str | None:
    """How an answer breaks its constraint; None where it does not."""
    try:
        if kind == "json_schema":
            from llcuda_net.upstream.constraints import json_schema

            return json_schema.broken_by(constraint, text, cut=cut)
        found = Matcher(gbnf.parse(constraint)).match(text)
    except (TooComplexError, MemoryError, RecursionError):
        return "the two are too complex to be compared"
    except ValueError as error:  # no such check was made before: it is of an older server
        return f"that {error}"
    if found is Match.NO:
        return "it has something that the grammar does not allow"
    if found is Match.BEGINNING and not cut:
        return "it ends too early"
    return None


def _answer(
    question: Callable[..., Answer], arguments: tuple[object, ...], seconds: float
) -> Answer:
    """Answer a question, or end by a signal: where the server was killed, nobody else ends this."""
    signal.alarm(int(PATIENCE) + 5)
    # Of CPU: how long a check takes on a busy machine says nothing of what it checks.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return question(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


@cache
def _confine() -> None:
    """Bound this process, once, and leave signals to the server, with whose pipe it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):  # not every system bounds it
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # what native code says when it ends
    os.close(quiet)
