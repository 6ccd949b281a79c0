"""Every vector, as it is, one byte at a time, and with trailing data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llcuda_protocol import (
    Connection,
    ConnectionClosed,
    ErrorCode,
    Event,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
)
from llcuda_protocol.kinds import HEADER
from tests.support.protocol.every import every
from tools.protocol_starts import STARTS, begin

FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"
FILES = sorted(FOLDER.glob("*.json"))
IN_FILES: dict[str, list[dict[str, Any]]] = {
    path.stem: json.loads(path.read_text())["vectors"] for path in FILES
}
VECTORS = [vector for vectors in IN_FILES.values() for vector in vectors]
BY_FILE = pytest.mark.parametrize("file", IN_FILES)
Outcome = tuple[list[Any], str | None]


def plain(value: Any) -> Any:
    """A value as vectors write it."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def describe(event: Event) -> dict[str, Any]:
    if isinstance(event, ConnectionClosed):
        return {"kind": "connection_closed"}
    fields: dict[str, Any] = plain(dataclasses.asdict(event))
    return {"kind": event.KIND.name.lower(), **fields}


def drain(connection: Connection) -> Outcome:
    events: list[Any] = []
    try:
        while (event := connection.next_event()) is not None:
            events.append(describe(event))
            if isinstance(event, ConnectionClosed):
                break
    except RemoteProtocolError as error:
        return events, error.code
    return events, None


def start(vector: dict[str, Any]) -> Connection:
    return begin(Role(vector["role"]), vector["state"])


def expected(vector: dict[str, Any]) -> Outcome:
    return vector.get("events", []), vector.get("error")


def run(vector: dict[str, Any], feed: Callable[[Connection, bytes], Outcome]) -> None:
    connection = start(vector)
    data = bytes.fromhex(vector["hex"])
    events, error = feed(connection, data)
    if vector.get("end") and error is None:
        connection.receive_data(b"")
        more, error = drain(connection)
        events += more
    assert (events, error) == expected(vector)


def whole(connection: Connection, data: bytes) -> Outcome:
    if data:
        connection.receive_data(data)
    return drain(connection)


def byte_by_byte(connection: Connection, data: bytes) -> Outcome:
    events: list[Any] = []
    for i in range(len(data)):
        connection.receive_data(data[i : i + 1])
        assert connection.buffered <= HEADER + connection.limits.max_frame
        more, error = drain(connection)
        events += more
        if error is not None:
            return events, error
    return events, None


def named(file: str) -> list[tuple[str, dict[str, Any]]]:
    return [(vector["name"], vector) for vector in IN_FILES[file]]


@BY_FILE
def test_whole(file: str) -> None:
    every(named(file), lambda vector: run(vector, whole))


@BY_FILE
def test_byte_by_byte(file: str) -> None:
    every(named(file), lambda vector: run(vector, byte_by_byte))


@BY_FILE
def test_with_trailing_data(file: str) -> None:
    every(named(file), with_trailing_data)


def with_trailing_data(vector: dict[str, Any]) -> None:
    connection = start(vector)
    data = bytes.fromhex(vector["hex"])
    events, error = expected(vector)
    if vector.get("end"):
        # Nothing can follow the end: more is the caller's mistake, and changes nothing.
        connection.receive_data(data)
        connection.receive_data(b"")
        with pytest.raises(LocalProtocolError):
            connection.receive_data(b"\0")
        assert drain(connection) == (events, error)
    elif error is not None:
        assert whole(connection, data + b"\xc1" * 50) == (events, error)
        assert connection.buffered == 0
    else:
        incomplete = start(vector)
        whole(incomplete, data)
        if incomplete.buffered:
            return  # what follows would be the rest of it
        assert whole(connection, data + b"\0\0") == (events, None)


def test_format() -> None:
    names = [vector["name"] for vector in VECTORS]
    assert len(names) == len(set(names)) >= 60
    for vector in VECTORS:
        assert vector["role"] in list(Role)
        assert vector["state"] in STARTS
        assert vector["meaning"]
        assert ("error" in vector) or ("events" in vector) or vector["meaning"].endswith("yet.")
        assert set(vector) <= {
            *("name", "role", "state", "hex", "meaning", "events", "error", "end"),
        }


def test_good_and_bad() -> None:
    codes = {vector.get("error") for vector in VECTORS}
    # Codes of a request, and the two that need a clock or a socket, cannot come from bytes.
    by_bytes = list(ErrorCode)[: list(ErrorCode).index(ErrorCode.INVALID_REQUEST)]
    beyond = {ErrorCode.UNAUTHORIZED, ErrorCode.HANDSHAKE_TIMEOUT, ErrorCode.TOO_MANY_CONNECTIONS}
    assert codes == {None, *(set(by_bytes) - beyond)}


def test_each_file_says_what_it_is() -> None:
    assert {path.name for path in FILES} >= {"handshake.json", "malformed.json", "fuzz.json"}
    for path in FILES:
        assert json.loads(path.read_text())["about"]
