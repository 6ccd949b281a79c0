"""`llcuda chat`: a conversation that lasts until Ctrl-D.

Ctrl-C stops the answer under way and keeps what there is of it. The client resumes an answer whose
connection was lost. A server that stays away longer ends neither the chat nor the conversation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from llcuda_net.cli.chat import commands, questions, report
from llcuda_net.cli.chat.prompt.plain import NotTextError
from llcuda_net.cli.chat.resume import Resumed
from llcuda_net.cli.chat.talk import LocalTalk, Message, Talk
from llcuda_net.cli.client import limit
from llcuda_net.cli.client.output import Output, print_note, show
from llcuda_net.cli.client.stats import print_stats
from llcuda_net.cli.common import CommandError, Exit, describe, print_error
from llcuda_net.client.chat.parts import image
from llcuda_net.client.events import Result, ToolCall
from llcuda_net.errors import ConfigError, ConnectError, RequestError
from llcuda_net.sync import Client, Stream
from llcuda_net.util.terminal import (
    echo,
    harmless,
    is_terminal,
    one_line,
    paint,
    quiet_terminal,
)


class Reader(Protocol):
    """Where questions come from."""

    def read(self, begun: str = "") -> str:
        """The next one.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C was typed where there was nothing else.
            NotTextError: it was no text.
        """


class Chat:
    """A conversation on a terminal, or with lines from a file.

    Args:
        prog: the command's name, for messages.
        connect: opens a connection; called again after one was lost.
        arguments: what goes with every request: sampling parameters, `timeout`. The chat changes
            the model in it.
        reader: where questions come from.
        make_output: makes what shows one answer.
        begin: finds the conversation: one to go on with, or (where it is told so) a new one.
        system: the system message to begin with.
        media: images and recordings that go with the first question.
        again: the command that goes on with a conversation, by its id.
        stats: show the times after each answer.
        models: is filled with the names of the server's models when they are known.
    """

    def __init__(
        self,
        prog: str,
        connect: Callable[[], Client],
        arguments: dict[str, Any],
        reader: Reader,
        make_output: Callable[[], Output],
        begin: Callable[[Client, bool], Resumed],
        *,
        system: str | None = None,
        media: Sequence[dict[str, Any]] = (),
        again: Callable[[str], str],
        stats: bool = False,
        models: list[str] | None = None,
    ) -> None:
        self._prog = prog
        self._connect = connect
        self._arguments = arguments
        self._reader = reader
        self._make_output = make_output
        self._begin = begin
        self._system = system
        self._again = again
        self._stats = stats
        self._client: Client | None = None
        self._talk: Talk = LocalTalk(arguments)
        self._media = [*media]  # for the next question
        self._calls: list[ToolCall] = []  # of the last answer; what they return is not known yet
        self._returned: list[Message] = []
        self._usage: dict[str, int] = {}  # of the last answer
        self._model: str | None = None  # which made it
        self._begun = ""  # stands in the line already
        self._edits = False  # what is typed there takes the place of the last question
        self._leaving = False  # Ctrl-C was typed just before
        self._models = [] if models is None else models
        self._interactive = is_terminal(sys.stdin)

    def run(self, first: str | None = None) -> int:
        """Ask `first`, then one question after the other; returns the exit code.

        Raises:
            ConnectError: there is no server at the beginning.
            RequestError, CommandError: it has no conversation that could go on.
        """
        code = Exit.OK  # of the first failure
        try:
            self._client = self._connect()
            if self._interactive:
                self._note("/help lists the commands; Ctrl-D ends")
            self._go_on(self._begin(self._client, False))
            if first is not None:
                code = self._ask(first)
            while (line := self._read()) is not None:
                done = self._do(line) if line else Exit.OK
                code = code or done
        finally:
            self._drop_client()
        if self._interactive and self._talk.again is not None:
            self._note(f"to go on later: {self._again(self._talk.again)}")
        return Exit.OK if self._interactive else code

    def _read(self) -> str | None:
        """The next question, stripped; None at the end."""
        begun, self._begun = self._begun, ""
        self._edits = bool(begun)
        try:
            line = self._reader.read(begun).strip()
        except EOFError:
            return None
        except NotTextError:
            print_error(self._prog, "that line was not UTF-8 text; nothing was sent")
            return ""
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            if self._leaving:
                return None
            self._leaving = True
            self._note("Ctrl-C once more, Ctrl-D or /quit ends")
            return ""
        self._leaving = False
        return None if line and commands.known(line) == "/quit" else line

    def _do(self, line: str) -> Exit:
        name, *words = line.split(maxsplit=1)
        rest = words[0] if words else ""
        command = commands.known(name)
        if command is None and line.startswith("//"):
            return self._ask(line[1:])
        if command is None and not (line.startswith("/") and not self._calls):
            return self._ask(line)
        if command is None:
            self._note(commands.unknown(name))
            return Exit.OK
        try:
            return self._obey(command, rest)
        except ConnectError as error:
            print_error(self._prog, str(error))
            self._drop_client()
        except RequestError as error:
            print_error(self._prog, describe(error))
        except (ConfigError, CommandError) as error:
            print_error(self._prog, str(error))
        except OSError as error:
            print_error(self._prog, f"{error.strerror or error}: {rest}")
        return Exit.OK if self._interactive else Exit.REFUSED

    def _obey(self, command: str, rest: str) -> Exit:
        if command == "/retry":
            return self._once_more(self._talk.asked)
        if command == "/edit":
            return self._edit()
        if command == "/clear":
            self._clear()
        elif command == "/system":
            self._set_system(rest)
        elif command == "/image":
            if not rest:
                raise CommandError("which image? /image FILE")
            self._media.append(image(Path(rest).expanduser()))
            self._note("it goes with the next question")
        elif command == "/model":
            self._choose_model(rest)
        elif command == "/tokens":
            self._count()
        elif command == "/save":
            self._note(report.save(rest, self._talk))
        else:
            self._note(commands.help_text())
        return Exit.OK

    # -- commands -------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._calls, self._returned, self._usage = [], [], {}
        self._talk = self._begin(self._there(), True).talk
        self._note("the conversation is forgotten here; the next question begins another one")

    def _set_system(self, text: str) -> None:
        self._system = text or None
        found = "set" if text else "taken away"
        if not text and isinstance(self._talk, LocalTalk) and self._talk.previous is not None:
            found = "as it was when the conversation went on"
        self._note(f"system message {found}")

    def _choose_model(self, name: str) -> None:
        found = self._there().models()
        self._models[:] = [str(one.get("name", "")) for one in found]
        if not name:
            now = self._arguments.get("model") or self._model
            default = next((str(m.get("name")) for m in found if m.get("default")), None)
            for line in report.model_lines(found, now or default):
                echo(line, file=sys.stderr, styled=True)
        elif name in self._models:
            self._arguments["model"] = name
            self._note(f"the next question is for {name}")
        else:
            self._note(report.no_model(name, self._models))

    def _count(self) -> None:
        used = self._usage.get("prompt_tokens", 0) + self._usage.get("completion_tokens", 0)
        model = self._arguments.get("model") or self._model
        for line in report.token_lines(used, self._there().models(), model):
            self._note(line)

    def _edit(self) -> Exit:
        text = questions.text_of(self._talk.asked)
        if text is None:
            self._note("there is no question yet that could be changed")
            return Exit.OK
        changed = questions.edited(text)
        if changed is None:  # there is no editor: here, then
            self._begun = text
            return Exit.OK
        if not changed or changed == text:
            self._note("it is as it was; nothing was sent")
            return Exit.OK
        return self._once_more(questions.with_text(self._talk.asked, changed))

    # -- questions and answers ------------------------------------------------------------------

    def _go_on(self, resumed: Resumed) -> None:
        """Take up a conversation: show its last answer."""
        self._talk = resumed.talk
        if self._system is None:
            self._system = resumed.system
        if resumed.answer is None:
            return
        if self._interactive and resumed.question:
            self._note(f"> {resumed.question}")
        with self._there().attach(resumed.answer, splices=True) as stream:
            try:
                if self._interactive:
                    with quiet_terminal():
                        result = show(stream, self._make_output())
                else:
                    for _ in stream:
                        pass
                    result = stream.result
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                self._stop(stream)
                return
            except RequestError as error:  # with which it ended
                print_error(self._prog, describe(error))
                return
        self._take(result)
        if self._calls:
            self._want()

    def _ask(self, text: str) -> Exit:
        """One question, or what a tool has returned; the last of these is answered."""
        if self._edits:
            self._edits = False
            return self._once_more(questions.with_text(self._talk.asked, text))
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

    def _once_more(self, asked: list[Message]) -> Exit:
        if not asked:
            self._note("there is no question yet that could be asked again")
            return Exit.OK
        self._returned = []
        return self._answer(asked, instead=True)

    def _want(self) -> None:
        """Ask for what the next tool returns."""
        if self._interactive:
            self._note(f"what does {one_line(self._calls[len(self._returned)].name)} return?")

    def _answer(self, asked: list[Message], *, instead: bool = False) -> Exit:
        """The answer to these messages; on failure they are taken back."""
        stream: Stream | None = None
        try:
            with quiet_terminal():
                stream = self._talk.start(self._there(), asked, self._system, instead=instead)
                with stream:
                    if stream.cached:
                        print_note(self._prog, "answered from the store")
                    result = show(stream, self._make_output())
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            return self._stop(stream)
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
        if (cut := limit.cut_line(self._arguments, result, chat=True)) is not None:
            print_note(self._prog, cut)
        if self._stats:
            print_stats(result)
        self._take(result)
        said = result.message if self._is_whole(result) else self._said(stream)
        self._talk.ended(stream, said)
        if self._calls:
            self._want()
        return Exit.OK

    def _stop(self, stream: Stream | None) -> Exit:
        """Ctrl-C: the answer is cancelled, and stays as far as it came."""
        self._note("stopped")
        self._calls = []
        try:
            result = self._talk.stopped(self._there(), stream)
            if result is not None:
                self._take(result)
            if stream is not None and stream.text:
                self._talk.ended(stream, self._said(stream))
        except ConnectError as error:
            print_error(self._prog, f"{error}; the next question connects again")
            self._drop_client()
        except RequestError as error:
            print_error(self._prog, describe(error))
        return Exit.OK

    def _take(self, result: Result) -> None:
        self._calls = result.tool_calls if self._is_whole(result) else []
        self._usage, self._model = result.usage, result.model

    @staticmethod
    def _is_whole(result: Result) -> bool:
        return result.reason not in ("length", "cancelled")

    @staticmethod
    def _said(stream: Stream) -> Message:
        return {"role": "assistant", "content": stream.text}

    def _there(self) -> Client:
        """The connection, made again if it was lost."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _note(self, text: str) -> None:
        echo(paint(harmless(text), "2", sys.stderr), file=sys.stderr, flush=True, styled=True)
