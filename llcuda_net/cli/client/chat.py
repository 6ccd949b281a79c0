"""`llcuda-client --chat`: a conversation that lasts until Ctrl-D.

Each question is sent with the whole history. Ctrl-C stops the answer under way and keeps what
there is of it. The client resumes an answer whose connection was lost. A server that stays away
longer ends neither the session nor the history.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llcuda_net.cli.client import limit
from llcuda_net.cli.client.named import previous_id
from llcuda_net.cli.client.output import Output, print_note, show
from llcuda_net.cli.client.stats import print_stats
from llcuda_net.cli.common import Exit, describe, fail, print_error
from llcuda_net.client.chat.parts import image
from llcuda_net.client.events import Result, ToolCall
from llcuda_net.client.requests import PREVIOUS
from llcuda_net.errors import ConfigError, ConnectError, RequestError
from llcuda_net.sync import Client, Stream
from llcuda_net.util.terminal import echo, harmless, is_terminal, one_line, paint

_PROMPT = "> "
_HELP = """\
/system TEXT  set the system message (no text: take it away)
/image FILE   send an image with the next question
/clear        forget the conversation
/exit         end; so does Ctrl-D
Ctrl-C        stop the answer"""


class Chat:
    """A conversation on a terminal, or with lines from a file.

    Args:
        prog: the command's name, for messages.
        connect: opens a connection; called again after one was lost.
        arguments: what goes with every request: sampling parameters, `timeout`.
        make_output: makes what shows one answer.
        system: the system message to begin with.
        media: images and recordings that go with the first question.
        previous: the id of the answer whose conversation goes on, or `last`; None: a new one.
        again: the command that goes on with the conversation of an answer, by its id.
        stats: show the times after each answer.
    """

    def __init__(
        self,
        prog: str,
        connect: Callable[[], Client],
        arguments: dict[str, Any],
        make_output: Callable[[], Output],
        *,
        system: str | None = None,
        media: Sequence[dict[str, Any]] = (),
        previous: str | None = None,
        again: Callable[[str], str],
        stats: bool = False,
    ) -> None:
        self._prog = prog
        self._connect = connect
        self._arguments = arguments
        self._system = system
        self._make_output = make_output
        self._stats = stats
        self._client: Client | None = None
        self._previous = previous  # what comes before the history, which the server has
        self._again = again
        self._last: str | None = None  # the id of the last answer, where it can be gone on with
        self._media = [*media]  # for the next question
        self._history: list[dict[str, Any]] = []
        self._calls: list[ToolCall] = []  # of the last answer; what they return is not known yet
        self._returned: list[dict[str, Any]] = []
        self._interactive = is_terminal(sys.stdin)

    def run(self, first: str | None = None) -> int:
        """Ask `first`, then one line after the other; returns the exit code.

        Raises:
            ConnectError: there is no server at the beginning.
            RequestError, CommandError: it has no conversation that could go on.
        """
        if self._interactive:
            # Gives input() its line editing and the session's history.
            with suppress(ImportError):
                import readline  # noqa: F401
        code = Exit.OK  # of the first failure
        try:
            self._client = self._connect()
            if self._interactive:
                self._note("/help lists the commands; Ctrl-D ends")
            if self._previous is not None:
                self._recall(self._client, self._previous)
            if first is not None:
                code = self._ask(first)
            while (line := self._read()) is not None:
                done = self._do(line) if line else Exit.OK
                code = code or done
        finally:
            self._drop_client()
        if self._interactive and self._last is not None:
            self._note(f"to go on later: {self._again(self._last)}")
        return Exit.OK if self._interactive else code

    def _read(self) -> str | None:
        """The next line, stripped; None at the end or for /exit."""
        prompt = _PROMPT if self._interactive else ""
        if prompt and not is_terminal(sys.stdout):
            echo(prompt, end="", file=sys.stderr, flush=True)  # stdout is for the answers alone
            prompt = ""
        try:
            line = input(prompt).removeprefix("\ufeff").strip()  # some editors' first character
            line.encode()  # some locales let bytes that are not UTF-8 pass, as surrogates
        except EOFError:
            if self._interactive:
                echo(file=sys.stderr)
            return None
        except UnicodeError:
            if not self._interactive:
                fail("standard input is not UTF-8 text: convert it first, with iconv say")
            print_error(self._prog, "that line was not UTF-8 text; nothing was sent")
            return ""
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            echo(file=sys.stderr)
            self._note("Ctrl-D or /exit ends")
            return ""
        return None if line in ("/exit", "/quit") else line

    def _do(self, line: str) -> Exit:
        command, _, rest = line.partition(" ")
        if command == "/clear":
            self._history.clear()
            self._calls, self._returned = [], []
            self._previous = self._last = None
            self._note("the conversation is forgotten")
        elif command == "/system":
            self._system = rest.strip() or None
            found = "set" if self._system else "taken away"
            if not self._system and self._previous is not None:
                found = "as it was when the conversation went on"
            self._note(f"system message {found}")
        elif command == "/image":
            self._add_image(rest.strip())
        elif command == "/help":
            self._note(_HELP)
        elif line.startswith("/") and not self._calls:
            self._note(f"there is no command {command}; /help lists them")
        else:
            return self._ask(line)
        return Exit.OK

    def _recall(self, client: Client, wanted: str) -> None:
        """Go on with a conversation that the server has: show its last answer."""
        self._previous = previous_id(client, wanted)
        with client.attach(self._previous) as stream:
            try:
                if self._interactive:
                    result = show(stream, self._make_output())
                else:
                    for _ in stream:
                        pass
                    result = stream.result
            except RequestError as error:  # with which it ended
                print_error(self._prog, describe(error))
                return
        if result.reason not in ("length", "cancelled"):
            self._calls = result.tool_calls
        if self._calls:
            self._want()

    def _add_image(self, name: str) -> None:
        try:
            self._media.append(image(Path(name)))
        except ConfigError as error:
            print_error(self._prog, str(error))
        else:
            self._note("it goes with the next question")

    def _ask(self, text: str) -> Exit:
        """One question, or what a tool has returned; the last of these is answered."""
        if not self._calls:
            content = [*self._media, text] if self._media else text
            code = self._answer([{"role": "user", "content": content}])
            if code == Exit.OK:
                self._media.clear()
            return code
        self._returned.append(self._calls[len(self._returned)].reply(text))
        if len(self._returned) < len(self._calls):
            self._want()
            return Exit.OK
        returned, self._returned = self._returned, []
        return self._answer(returned)

    def _want(self) -> None:
        """Ask for what the next tool returns."""
        if self._interactive:
            self._note(f"what does {one_line(self._calls[len(self._returned)].name)} return?")

    def _answer(self, asked: list[dict[str, Any]]) -> Exit:
        """The answer to these messages; on failure they are taken back."""
        stream: Stream | None = None
        result: Result | None = None
        try:
            if self._client is None:
                self._client = self._connect()
            with limit.generate(
                self._client,
                self._arguments,
                messages=[*self._history, *asked],
                system=self._system,
                splices=True,
                **({} if self._previous is None else {"previous": self._previous}),
            ) as stream:
                if stream.cached:
                    print_note(self._prog, "answered from the store")
                result = whole = show(stream, self._make_output())
            if (cut := limit.cut_line(self._arguments, whole, chat=True)) is not None:
                print_note(self._prog, cut)
            if self._stats:
                print_stats(whole)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            self._note("stopped")
            if stream is None or not stream.text:
                return Exit.OK
        except ConnectError as error:
            print_error(self._prog, f"{error}; the next question connects again")
            self._drop_client()
            return Exit.CONNECT
        except RequestError as error:
            print_error(self._prog, describe(error))
            if error.code == "context_exceeded":
                self._note("the conversation is too long for the model: /clear begins a new one")
            elif error.code in ("shutting_down", "lease_lost"):
                self._drop_client()
            return Exit.REFUSED
        assert self._client is not None
        said: dict[str, Any] = {"role": "assistant", "content": stream.text}
        self._calls = []
        if result is not None and result.reason not in ("length", "cancelled"):
            said, self._calls = result.message, result.tool_calls  # which are whole
        self._history += [*asked, said]
        kept = stream.level not in (None, "memory") and PREVIOUS in self._client.features
        self._last = stream.id if kept else None
        if self._calls:
            self._want()
        return Exit.OK

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _note(self, text: str) -> None:
        echo(paint(harmless(text), "2", sys.stderr), file=sys.stderr, flush=True, styled=True)
