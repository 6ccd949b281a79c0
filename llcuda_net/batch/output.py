"""The results: one JSON object per line, each written once, whatever happens in between.

Every line is one write to a file opened for appending, so a kill leaves whole lines, but for the
last one at worst, which is cut off when the job resumes. In order, a result that comes before its
turn waits in memory and in FILE.waiting, from where a resumed job takes it. An error that
may pass is written too, and taken out again when the job resumes, to be tried anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from llcuda_net.errors import ConfigError

#: Results between two fdatasyncs: a power cut takes no more than these, and they are asked again.
_SYNC = 256


class Output:
    """Where the results of a job go.

    Args:
        path: the file; it is made, or continued.
        ordered: in the input's order, not in the order of arrival.

    Attributes:
        known: the key of each line that has its result already, by number.
        errors: how many of those that were there are errors, which will stay.

    Raises:
        ConfigError: the file cannot be used, is in use, or is no job's results.
    """

    def __init__(self, path: Path, *, ordered: bool) -> None:
        self.path = path
        self.ordered = ordered
        self.known: dict[int, str] = {}
        self.errors = 0
        self._real = path.resolve()  # a link is written through, and never replaced
        self._waiting_path = self._real.with_name(self._real.name + ".waiting")
        self._waiting: dict[int, bytes] = {}
        self._order: list[int] = []  # the input's numbers, as far as they were read
        self._at = 0  # how many of those are written
        self._since = 0
        self._file = self._aside = -1
        try:
            _require_file(path)
            self._file = _open(path)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if ordered:
                self._aside = _open(self._waiting_path)
            self._load()
        except BlockingIOError:
            self._let_go()
            raise ConfigError(f"another job is writing {path}: wait for it, or end it") from None
        except OSError as error:
            self._let_go()
            raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
        except ConfigError:
            self._let_go()
            raise

    # -- what is there --------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "open" if self._file >= 0 else "closed"
        return (
            f"<Output {self.path} {state}, {len(self.known)} lines, {len(self._waiting)} waiting>"
        )

    def _load(self) -> None:
        """Keep what is good, and lay the files out as they would be now."""
        found = _read(self.path)
        aside = _read(self._waiting_path) if self._waiting_path.exists() else []
        good = {number: (key, line) for number, key, line, again in [*found, *aside] if not again}
        self.known = {number: key for number, (key, _) in good.items()}
        self.errors = sum(b'"error": {' in line and _is_error(line) for _, line in good.values())
        if not self.ordered:
            if len(good) != len(found) or _size(found) != self.path.stat().st_size:
                self._rewrite([line for _, line in good.values()])
            if aside:
                self._waiting_path.unlink()
            return
        # In order: what stands before the first gap stays, the rest waits again.
        prefix = 0
        length = 0
        last = 0
        for number, _, line, again in found:
            if again or number <= last:
                break
            prefix, length, last = prefix + 1, length + len(line), number
        self._waiting = {n: line for n, (_, line) in good.items() if n > last}
        os.ftruncate(self._aside, _size(aside))
        missing = set(self._waiting) - {number for number, *_ in aside}
        for number in sorted(missing):  # set aside before they are cut off
            os.write(self._aside, self._waiting[number])
        os.fdatasync(self._aside)
        os.ftruncate(self._file, length)

    def _rewrite(self, lines: list[bytes]) -> None:
        """Replace the file at once: a kill leaves the old one or the new one."""
        new = self._real.with_name(self._real.name + ".new")
        new.write_bytes(b"".join(lines))
        new.replace(self._real)
        os.close(self._file)
        self._file = _open(self.path)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    # -- what comes -----------------------------------------------------------------------------

    def expect(self, number: int) -> None:
        """The input has this line: called once for each, in order, before its result is added."""
        if self.ordered:
            self._order.append(number)
            self._advance()

    def add(self, number: int, key: str, result: dict[str, Any]) -> None:
        """Write a result; it is in the file, or set aside, when this returns.

        Raises:
            ConfigError: the disk does not take it.
        """
        line = json.dumps(result, ensure_ascii=False).encode() + b"\n"
        self.known[number] = key
        try:
            if self.ordered:
                self._waiting[number] = line
                if self._at < len(self._order) and self._order[self._at] != number:
                    _write(self._aside, line)
                self._advance()
            else:
                _write(self._file, line)
            self._since += 1
            if self._since >= _SYNC:
                self._since = 0
                os.fdatasync(self._file)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror or error}") from None

    def _advance(self) -> None:
        """Write what has its turn."""
        while self._at < len(self._order):
            number = self._order[self._at]
            line = self._waiting.pop(number, None)
            if line is not None:
                _write(self._file, line)
            elif number not in self.known:
                return
            self._at += 1

    def close(self) -> None:
        """Flush to the disk and close; the file of waiting results is removed once none waits."""
        os.fdatasync(self._file)
        if self.ordered and not self._waiting:
            self._waiting_path.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        """Close what is open."""
        for descriptor in (self._aside, self._file):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._aside = -1


def _require_file(path: Path) -> None:
    """Refuse what cannot be read again; a path where nothing is will be a file.

    Raises:
        ConfigError: it is a pipe, a terminal or another device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a directory says what it is
        raise ConfigError(
            f"cannot write {path}: it is no regular file, and the results are read again when a"
            " job goes on: give a file"
        )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write(file: int, line: bytes) -> None:
    while line:  # a signal may cut a write short
        line = line[os.write(file, line) :]


def _is_error(line: bytes) -> bool:
    return "error" in json.loads(line)


def _size(found: list[tuple[int, str, bytes, bool]]) -> int:
    return sum(len(line) for _, _, line, _ in found)


def _read(path: Path) -> list[tuple[int, str, bytes, bool]]:
    """Number, key, bytes and "try again" of each whole line; a last one without end is left out.

    Raises:
        ConfigError: a line is no result.
    """
    found = []
    with path.open("rb") as file:
        for place, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                value = json.loads(line)
                error = value.get("error") or {}
                found.append(
                    (int(value["line"]), str(value["key"]), line, bool(error.get("retry")))
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ConfigError(
                    f"{path}, line {place}, is no result of a batch: give another --output"
                ) from None
    return found
