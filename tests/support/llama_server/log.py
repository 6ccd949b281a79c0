"""What the stand-in logs: llama.cpp's own lines, under the name that the binary has in them."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from contextlib import suppress
from typing import NoReturn

from tests.support.llama_server.behaviour import Behaviour

#: What llama.cpp logs from the function that the library and the binary each call by a name.
_OF_LIBRARY = re.compile(r"^(\S+ [A-Z] srv) {10}init: (.*)$")
_ONLY_LIBRARY = ("build_info: ", "loading model")
_LISTENS = re.compile(r"listening on (http://(\S+):(\d+))$")
_LAST_WORDS = 2.0  # seconds to wait for a line, which a log that is turned down never has
#: Words of the lines that are waited for.
LOADING, LISTENING = b"load_model: loading model", b"listening on http"
CLEANING, EXITING = b"cleaning up before exit", b"exiting due to"
_started = time.monotonic()


def log(level: str, text: str, *, source: str = "srv  llama_server") -> None:
    """Write one line as llama.cpp does."""
    passed = int((time.monotonic() - _started) * 1e6)
    seconds, micro = divmod(passed, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    stamp = f"{minutes}.{seconds:02}.{micro // 1000:03}.{micro % 1000:03}"
    os.write(2, f"{stamp} {level} {source}: {text}\n".encode())


def rename(line: str, told: Behaviour) -> str | None:
    """A line of the library as the binary logs it; None: the binary does not."""
    if " ~Server: " in line:
        return None
    found = _OF_LIBRARY.match(line)
    if found is None:
        return line
    head, text = found.groups()
    if text.startswith(_ONLY_LIBRARY):
        return None
    if told.old_log and (listens := _LISTENS.search(text)):
        return f"main: server is listening on {listens[1]} - starting the main loop"
    return f"{head}  llama_server: {text}"


class Diversion:
    """All that is written to fd 2 passes `rename`, in a process of its own.

    In this one, the native code holds the interpreter while a model loads. The other ends when
    this one has, in whatever way. Make one before there is any thread.
    """

    def __init__(self, told: Behaviour) -> None:
        source, sink = os.pipe()
        self._seen, seen = os.pipe()
        if os.fork():
            os.close(source)
            os.close(seen)
            os.dup2(sink, 2)
            os.close(sink)
        else:
            os.close(sink)
            os.close(self._seen)
            _pass_on(source, seen, told)

    def wait(self, words: bytes) -> None:
        """Until a line with these words has passed: llama.cpp logs from a thread of its own."""
        got = b""
        while words not in got and select.select([self._seen], [], [], _LAST_WORDS)[0]:
            got += os.read(self._seen, 65_536)


def _pass_on(source: int, seen: int, told: Behaviour) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    rest = b""
    with suppress(OSError):  # nobody reads any more
        while data := os.read(source, 65_536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                shown = rename(line.decode(errors="replace"), told)
                if shown is not None:
                    os.write(2, shown.encode() + b"\n")
                if any(words in line for words in (LOADING, LISTENING, CLEANING, EXITING)):
                    with suppress(OSError):  # not waited for
                        os.write(seen, line)
        os.write(2, rest)
    os._exit(0)
