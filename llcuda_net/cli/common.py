"""What the commands share: exit codes, the one-line error, colour, and reading small files.

Imported by every `--help`, so only what the standard library loads quickly is imported here.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from enum import IntEnum
from types import FrameType
from typing import Any, NoReturn

from llcuda_net.cli.completion import completer
from llcuda_net.errors import ConfigError, ConnectError, EngineError, LlcudaError, RequestError
from llcuda_net.util.terminal import echo, one_line, paint
from llcuda_net.util.text_files import read_text


class Exit(IntEnum):
    """Exit codes of every command; the last three are 128 plus the signal, as in a shell."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    CONNECT = 3
    INTERRUPTED = 130
    PIPE = 141
    TERMINATED = 143


#: Most tokens of an answer where none are given: a model in a loop would fill its whole context.
DEFAULT_TOKENS = 2048
#: The number that asks for as many as the context holds.
UNLIMITED = -1
TOKEN_LIMIT_HELP = (
    f"most tokens to generate; {UNLIMITED}: until the model's context is full; default:"
    f" {DEFAULT_TOKENS:,}, or the context where that is smaller; a note says when it cuts"
)


#: The words by which `llcuda` called a command that has a name of its own, too.
_CALLED: ContextVar[str | None] = ContextVar("called", default=None)


def program(own: str) -> str:
    """By which words this command was called: "llcuda ask", or its own name."""
    return _CALLED.get() or own


@contextmanager
def called(words: str) -> Iterator[None]:
    """Name the command of a block: in its help, its errors and what it says to type."""
    token = _CALLED.set(words)
    try:
        yield
    finally:
        _CALLED.reset(token)


class CommandError(Exception):
    """Ends a command with one line and an exit code."""

    def __init__(self, message: str, code: int = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: int = Exit.USAGE) -> NoReturn:
    """End the command: `run_command` prints the line and returns the code.

    Raises:
        CommandError: always.
    """
    raise CommandError(message, code)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and whose epilog keeps its line breaks."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def parse_args(  # type: ignore[override]  # as argparse is called here
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """As argparse does; where a shell asks what fits, print that and exit."""
        if completer.asked():
            completer.answer(self)
        return super().parse_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse lists all choices; somebody who mistyped one looks for one.
        near = nearest(str(value), map(str, action.choices or ()))
        if near is not None and value not in (action.choices or ()):
            raise argparse.ArgumentError(
                action, f"invalid choice: {str(value)!r}: did you mean {near}?"
            )
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Print the line that says what was wrong, and exit with the code for usage."""
        unknown = re.match(r"unrecognized arguments: (-[^\s=]+)", message)
        if unknown and (near := nearest(unknown[1], options_of(self))):
            message += f": did you mean {near}?"
        # An argument in a wrong place is repeated: there may be a password in it.
        message = re.sub(r"(postgres(ql)?://)[^\s']*", r"\1…", message)
        print_error(self.prog, f"{message} (see {self.prog} --help)")
        self.exit(Exit.USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse writes help, which quotes argv[0], and what it says itself through this.
        if not message:
            return
        # Help that does not go out is an error; an error that does not has nowhere to be told.
        with suppress(OSError) if file is not sys.stdout else nullcontext():
            echo(message, end="", file=file or sys.stderr)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word that was probably meant; None: none is like it."""
    found = difflib.get_close_matches(word, list(words), 1, cutoff=0.7)
    return found[0] if found else None


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All options of a command and its subcommands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options_of(below)


class VersionAction(argparse.Action):
    """`--version`; the version is looked up only when it is asked for."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        """Print it and exit."""
        from llcuda_net.util.version import package_version

        echo(f"{parser.prog} {package_version()}")
        parser.exit()


def warn_of_variables(prog: str) -> None:
    """Name the LLCUDA_* variables that nothing reads, on stderr."""
    if sys.stderr is None or not any(name.startswith("LLCUDA_") for name in os.environ):
        return  # as mostly, and what follows takes a while to load
    from llcuda_net.config.environment import told
    from llcuda_net.config.settings import unknown_variables

    for name, near in unknown_variables().items():
        with suppress(OSError, ValueError):
            echo(f"{prog}: warning: {told(name, near)}", file=sys.stderr, flush=True)


def run_command(prog: str, body: Callable[[], int], *, warn: bool = True) -> int:
    """Run a command's body and turn what it raises into one line on stderr and an exit code.

    Args:
        warn: of variables that nothing reads; a command that refuses them does so itself.
    """
    try:
        if warn:
            warn_of_variables(prog)
        try:
            return body()
        finally:
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()
    except CommandError as error:
        print_error(prog, str(error))
        return error.code
    except ConnectError as error:
        print_error(prog, str(error))
        return Exit.CONNECT
    except RequestError as error:
        print_error(prog, describe(error))
        return Exit.REFUSED
    except LlcudaError as error:
        print_error(prog, str(error))
        return Exit.USAGE if isinstance(error, ConfigError | EngineError) else Exit.REFUSED
    except BrokenPipeError:
        discard_stdout()
        return Exit.PIPE
    except OSError as error:
        print_error(prog, f"{error.strerror or error}{_of(error)}")
        discard_stdout()
        return Exit.REFUSED
    except Terminated:
        return Exit.TERMINATED
    except Exception:
        # A bug. Python itself would print what the error says as it is, escape sequences included.
        if sys.stderr is not None:
            echo(traceback.format_exc(), file=sys.stderr, end="")
        return Exit.REFUSED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _of(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


class Terminated(BaseException):
    """SIGTERM arrived; everything opened is closed on the way out."""


def end_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does: everything opened is closed first."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def describe(error: RequestError) -> str:
    """A refused request in one line: what, its code, and whether to try again."""
    advice = ""
    if error.retry:
        wait = f" in {error.retry_after:g} s" if error.retry_after else " later"
        advice = f"; try again{wait}"
    return f"{error.message} ({error.code}{advice})"


def print_error(prog: str, message: str) -> None:
    """One line on stderr; nothing is raised if stderr has gone away."""
    if sys.stderr is None:
        return
    label = paint("error:", "31", sys.stderr)
    line = one_line(" ".join(message.split()))
    with suppress(OSError, ValueError):
        echo(f"{prog}: {label} {line}", file=sys.stderr, flush=True, styled=True)


def discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush finds no broken pipe."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def token_limit(text: str) -> int:
    """A type for argparse: most tokens of an answer, or UNLIMITED."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if value != UNLIMITED and not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(
            f"must be 1 to {2**31 - 1}, or {UNLIMITED} for as many as the context holds, not {text}"
        )
    return value


def cut_line(given: int | None, tokens: int, go_on: str) -> str | None:
    """What to say of an answer that its length ended; None where its reader gave the limit.

    Args:
        given: the limit; None where there was none.
        tokens: of the answer.
        go_on: how its reader gets more, where the default limit cut.
    """
    if given not in (None, UNLIMITED):
        return None
    cut = f"the answer was cut after {tokens:,} token{'' if tokens == 1 else 's'}"
    if given == UNLIMITED or tokens < DEFAULT_TOKENS:
        return f"{cut}: the model's context is full"
    return (
        f"{cut}, the limit where none is given; {go_on} --max-tokens N"
        f" ({UNLIMITED}: until the context is full)"
    )


def check_text(text: str, what: str) -> str:
    """The text, unless it holds bytes of another encoding, which Python keeps as surrogates.

    Raises:
        CommandError: it is.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(f"{what} is not UTF-8 text")
    return text


def read_secret(path: str, what: str) -> str:
    """The text of a UTF-8 file that nobody else should read; a line on stderr says if others can.

    Raises:
        ConfigError: as `read_text`.
    """
    from llcuda_net.config.files import open_to_others

    text = read_text(path, what)
    mode = open_to_others(path)
    if mode is not None and sys.stderr is not None:
        with suppress(OSError, ValueError):
            note = f"warning: others can read the {what} {one_line(path)} (mode {mode}): chmod 600"
            echo(note, file=sys.stderr, flush=True)
    return text


def read_token(path: str | None) -> str | None:
    """The token from a file, or else from LLCUDA_TOKEN, or None.

    Raises:
        ConfigError: the file cannot be read.
        CommandError: it holds no token, or more than one line.
    """
    if path is None:
        return check_text(os.environ.get("LLCUDA_TOKEN", "").strip(), "LLCUDA_TOKEN") or None
    token = read_secret(path, "token file").strip()
    if not token or len(token.splitlines()) > 1:
        fail(f"token file {path} must hold one line, the token")
    return token
